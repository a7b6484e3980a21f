"""R1: a node joins or is drained, and somebody is cut off in the midst of it."""

from chaos import lab
from chaos.nemesis import Recipe
from chaos.scenarios import Scenario
from chaos.scenarios.join import SETTINGS

_CUTS = tuple(
    f"cut:{role}:{stage}"
    for role in ("new-node", "raft-leader", "old-owner")
    for stage in ("copying", "settling")
)
_HOLDS = ((1.0, 6.0),)
_WAITS = (0.2, 0.5)
SCENARIO = Scenario(
    name="move-cut",
    title="a node joins or is drained; it, the Raft leader or an old owner is cut off meanwhile",
    aim="I1 I4 I8 I9 L2: who knows an older stage neither acknowledges nor reads by it alone",
    recipe=Recipe(
        "join",
        _CUTS,
        _HOLDS,
        waits=_WAITS,
        recovery=12.0,
        also=(Recipe("drain", _CUTS, _HOLDS, waits=_WAITS, recovery=12.0),),
    ),
    spare=1,
    settings=SETTINGS,
    needs=(lab.NETWORK,),
)
