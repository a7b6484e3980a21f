"""R1: a node leaves for good and a fresh one takes its place, and somebody fails in the midst of it."""

from chaos.nemesis import Recipe
from chaos.scenarios import Scenario
from chaos.scenarios.join import BLOWS, SETTINGS

SCENARIO = Scenario(
    name="replace",
    title="a node is replaced by an empty one; it, the Raft leader or an old owner fails meanwhile",
    aim="I1 I4 I8 I9: a replica is made anew from a quorum, not from the one that leaves",
    recipe=Recipe("replace", BLOWS, ((0.3, 2.0),), waits=(0.2, 0.5), recovery=16.0),
    spare=2,
    settings=SETTINGS,
)
