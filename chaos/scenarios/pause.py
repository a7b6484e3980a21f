"""P3: SIGSTOP, then SIGCONT: a node that does not know that it was away.

0.2 s is a hiccup, 1 s a missed heartbeat, 5 s a lost lease, and 15 s is longer than every time-out
(a request is held for 10 s, clients wait for 12): whoever wakes up has been replaced.
"""

from chaos.nemesis import RAFT_LEADER, Recipe
from chaos.scenarios import Scenario

SCENARIO = Scenario(
    name="pause",
    title="SIGSTOP of one node for 0.2, 1, 5 and 15 s, then SIGCONT",
    aim="I4 I5 I11: a node that slept acknowledges nothing by old rights, and answers nothing stale",
    recipe=Recipe(
        "pause", ("any-1", RAFT_LEADER), (0.2, 1.0, 5.0, 15.0), waits=(0.5, 1.5), recovery=0.5
    ),
)
