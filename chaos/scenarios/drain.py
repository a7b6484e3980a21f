"""R1: a node gives up its shards under load, and somebody fails in the midst of it."""

from chaos.nemesis import Recipe
from chaos.scenarios import Scenario
from chaos.scenarios.join import BLOWS, SETTINGS

SCENARIO = Scenario(
    name="drain",
    title="a node is drained; a new owner, the Raft leader or an old owner fails meanwhile",
    aim="I1 I4 I8 I9: what leaves a node is elsewhere before it goes",
    recipe=Recipe("drain", BLOWS, ((0.3, 2.0),), waits=(0.2, 0.5), recovery=14.0),
    spare=1,
    settings=SETTINGS,
)
