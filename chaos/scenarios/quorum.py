"""R1: W and R change under load, in every step of a circle, and somebody fails in the midst of it."""

from chaos.nemesis import Recipe
from chaos.scenarios import Scenario
from chaos.scenarios.join import SETTINGS

_TROUBLES = ("kill", "pause")
#: All owners are filled up before the new R may be less; then there are stages to be struck in.
_FILLING = ("3/2/2>3/3/1", "3/1/3>3/2/2")
_AT_ONCE = "3/3/1>3/1/3"
_BLOWS = tuple(
    f"{trouble}:{role}:{stage}:{change}"
    for trouble in _TROUBLES
    for role in ("raft-leader", "old-owner")
    for change in _FILLING
    for stage in ("copying", "settling")
) + tuple(
    f"{trouble}:{role}:{stage}:{_AT_ONCE}"
    for trouble in _TROUBLES
    for role, stage in (("raft-leader", "begun"), ("old-owner", "before"))
)
SCENARIO = Scenario(
    name="quorum",
    title="W and R change (3/2/2, 3/3/1, 3/1/3, 3/2/2); the Raft leader or an owner fails meanwhile",
    aim="I1 I4 I6 I9 I10: old and new quorums meet at every moment, whoever fails",
    recipe=Recipe("quorum", _BLOWS, ((0.5, 3.0), 6.0), waits=(0.2, 0.5), recovery=14.0),
    rows_per_second_min=5.0,
    settings=SETTINGS,
)
