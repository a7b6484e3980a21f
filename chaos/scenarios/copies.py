"""R1: N changes under load, to two copies, to four, and back; somebody fails in the midst of it."""

from chaos.nemesis import Recipe
from chaos.scenarios import Scenario
from chaos.scenarios.join import SETTINGS

_BLOWS = tuple(
    f"{trouble}:{role}:copying:{change}"
    for trouble in ("kill", "pause")
    for role in ("raft-leader", "old-owner")
    for change in ("3/2/2>4/3/2", "4/3/2>3/2/2", "3/2/2>2/2/1", "2/2/1>3/2/2")
)
SCENARIO = Scenario(
    name="copies",
    title="N changes (3 to 4, to 2, and back); the Raft leader or an owner fails meanwhile",
    aim="I1 I4 I8 I9 I10: copies are made, and given up, by quorums that meet",
    recipe=Recipe("quorum", _BLOWS, ((0.5, 3.0),), waits=(0.2, 0.5), recovery=18.0),
    spare=1,
    rows_per_second_min=5.0,
    settings=SETTINGS,
)
