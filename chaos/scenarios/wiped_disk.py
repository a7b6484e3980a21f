"""S6: a node comes back with an empty disk under its old name."""

from chaos.nemesis import Recipe
from chaos.scenarios import Scenario

SCENARIO = Scenario(
    name="wiped-disk",
    title="a node is started on an empty disk under its old id: it must be refused",
    aim="I9 S6: a disk that lost what it promised does not count as an owner",
    recipe=Recipe("wipe", ("any-1",), ((0.1, 0.5),), waits=(0.5, 1.5), recovery=5.0),
)
