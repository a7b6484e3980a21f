"""P5: the Raft leader is stopped again and again, hardly elected."""

from chaos.nemesis import RAFT_LEADER, Recipe
from chaos.scenarios import Scenario

SCENARIO = Scenario(
    name="leader-flapping",
    title="SIGSTOP of whoever leads the Raft group for 0.6 s, again and again",
    aim="L1 I10: the data plane does not need it; epochs only rise",
    recipe=Recipe("pause", (RAFT_LEADER,), (0.6,), waits=(0.02, 0.1), recovery=0.1),
)
