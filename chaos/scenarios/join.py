"""R1: a fourth node joins under load, and somebody fails in the midst of it."""

from chaos.nemesis import Recipe
from chaos.scenarios import Scenario

#: Each role is struck in each stage: (trouble, role, stage), see `chaos.faults.moves`.
BLOWS = tuple(
    f"{trouble}:{role}:{stage}"
    for trouble in ("kill", "pause")
    for role in ("new-node", "raft-leader", "old-owner")
    for stage in ("copying", "settling")
)
#: Copies that nobody owns any more go soon, so that the end shows who holds what.
SETTINGS = "\n[rebalance]\nlet_go_after_seconds = 1.0\n"
SCENARIO = Scenario(
    name="join",
    title="a node joins; it, the Raft leader or an old owner is killed or stopped meanwhile",
    aim="I1 I4 I8 I9: shards move with all that was acknowledged, whoever fails in whatever stage",
    recipe=Recipe("join", BLOWS, ((0.3, 2.0),), waits=(0.2, 0.5), recovery=14.0),
    spare=1,
    settings=SETTINGS,
)
