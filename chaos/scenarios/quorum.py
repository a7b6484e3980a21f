"""R1: W and R change under load, in every step of a circle, and somebody fails in the midst of it."""

from chaos.nemesis import Recipe
from chaos.scenarios import Scenario
from chaos.scenarios.join import SETTINGS

_TROUBLES = ("kill", "pause")
#: All owners are filled up before the new R may be less; then there are stages to be struck in.
_FILLING = tuple(
    f"{trouble}:{role}:{stage}:{change}"
    for trouble in _TROUBLES
    for role in ("raft-leader", "old-owner")
    for change in ("3/2/2>3/3/1", "3/1/3>3/2/2")
    for stage in ("copying", "settling")
)
#: Struck for longer than a write is held: just before R is raised, which moves nothing, and as soon as that
#: is taken; and when a change has ended, so that its W or R cannot be met. (Not among the last: a pause, see
#: "Not yet" in docs/reliability.md.)
_FOR_LONG = (
    "kill:old-owner:before:3/3/1>3/1/3", "kill:raft-leader:begun:3/3/1>3/1/3",
    "pause:old-owner:before:3/3/1>3/1/3", "pause:raft-leader:begun:3/3/1>3/1/3",
    "kill:old-owner:after:3/2/2>3/3/1", "kill:old-owner:after:3/3/1>3/1/3",
)  # fmt: skip
SCENARIO = Scenario(
    name="quorum",
    title="W and R change (3/2/2, 3/3/1, 3/1/3, 3/2/2); the Raft leader or an owner fails meanwhile",
    aim="I1 I4 I6 I9 I10: old and new quorums meet at every moment, whoever fails",
    recipe=Recipe(
        "quorum", _FILLING, ((0.5, 3.0),), waits=(0.2, 0.5), recovery=14.0,
        also=(Recipe("quorum", _FOR_LONG, (15.0,), waits=(0.2, 0.5), recovery=2.0),),
    ),
    rows_per_second_min=5.0,
    settings=SETTINGS,
)  # fmt: skip
