"""P1: kill -9 of one node at a time, whatever it is just then: owner, shard leader, coordinator."""

from chaos.nemesis import Recipe
from chaos.scenarios import Scenario

SCENARIO = Scenario(
    name="kill-one",
    title="kill -9 of one node after another, under load; each is started again",
    aim="I1 I2 I5: a quorum outlives any one node, and resends through others store nothing twice",
    recipe=Recipe("kill", ("any-1",), ((0.3, 3.0),), waits=(0.5, 1.5), recovery=2.0),
)
