"""P1 and P5: kill -9 of whoever leads the Raft group. The data plane must not need it."""

from chaos.nemesis import RAFT_LEADER, Recipe
from chaos.scenarios import Scenario

SCENARIO = Scenario(
    name="kill-raft-leader",
    title="kill -9 of the Raft leader, whoever that is then; it is started again",
    aim="I5 I11 L2: leadership of shards moves with its epochs, numbered writers go on",
    recipe=Recipe("kill", (RAFT_LEADER,), ((1.0, 4.0),), waits=(0.5, 1.5), recovery=2.0),
)
