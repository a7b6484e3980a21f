"""P6: two of three nodes killed or one left alone: nothing can be promised, and that must be said."""

from chaos.nemesis import Recipe
from chaos.scenarios import Scenario

SCENARIO = Scenario(
    name="lose-majority",
    title="kill -9 of two of three nodes at once; the one left must promise nothing",
    aim="I6 I9 L2: no acknowledgement and no complete answer without a quorum, and service returns",
    recipe=Recipe("kill", ("any-2",), ((2.0, 13.0),), waits=(1.0, 2.0), recovery=4.0),
    rows_per_second_min=10.0,
)
