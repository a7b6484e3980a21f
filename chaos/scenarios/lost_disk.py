"""S6: a disk is lost for good, and the node is brought in again as the documentation says."""

from chaos.nemesis import Recipe
from chaos.scenarios import Scenario
from chaos.scenarios.join import SETTINGS

SCENARIO = Scenario(
    name="lost-disk",
    title="a disk is lost; the node joins anew with an empty one, or another takes its place",
    aim="I1 I8 S6: it counts for nothing until the others have filled it",
    recipe=Recipe(
        "lost-disk", ("rejoin", "replace"), ((0.5, 2.0),), waits=(1.0, 2.0), recovery=20.0
    ),
    spare=2,
    settings=SETTINGS,
)
