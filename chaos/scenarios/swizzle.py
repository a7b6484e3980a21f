"""N6: the clients' links are closed one after another and opened in another order."""

from chaos.nemesis import Recipe
from chaos.scenarios import Scenario

SCENARIO = Scenario(
    name="swizzle",
    title="links to one, two or all nodes are closed one by one, and opened in another order",
    aim="I2 L2: whatever is left is used, and what comes back is found",
    recipe=Recipe(
        "swizzle", ("any-1", "any-2", "all"), ((0.5, 3.0),), waits=(0.5, 1.5), recovery=2.0
    ),
    links=True,
    rows_per_second_min=10.0,
)
