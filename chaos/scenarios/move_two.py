"""R1: a node joins or is drained, and two others fail at once in two ways: one is killed or stopped, one cut
off.
"""

from chaos import lab
from chaos.nemesis import Recipe
from chaos.scenarios import Scenario
from chaos.scenarios.join import SETTINGS

_BLOWS = tuple(
    f"{troubles}:{roles}:{stage}"
    for troubles in ("kill+cut", "pause+cut")
    for roles in (
        "new-node+raft-leader", "raft-leader+new-node", "raft-leader+old-owner", "old-owner+raft-leader",
        "new-node+old-owner", "old-owner+new-node",
    )
    for stage in ("copying", "settling")
)  # fmt: skip
_HOLDS, _WAITS = ((0.5, 4.0),), (0.2, 0.5)
SCENARIO = Scenario(
    name="move-two",
    title="a node joins or is drained; of it, the Raft leader and an owner one is killed, one cut off",
    aim="I1 I4 I8 I9 I10 L2: without any quorum nothing is promised, and all goes on by itself after it",
    recipe=Recipe(
        "join", _BLOWS, _HOLDS, waits=_WAITS, recovery=14.0,
        also=(Recipe("drain", _BLOWS, _HOLDS, waits=_WAITS, recovery=14.0),),
    ),
    spare=1,
    rows_per_second_min=5.0,
    settings=SETTINGS,
    needs=(lab.NETWORK,),
)  # fmt: skip
