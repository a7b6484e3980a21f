"""N4: the clients' links to one node are slow and uneven."""

from chaos.nemesis import Recipe
from chaos.scenarios import Scenario

SCENARIO = Scenario(
    name="slow-link",
    title="answers of one or two nodes arrive 300 +- 200 ms late",
    aim="I2 I4: nothing but time is lost; acknowledgements and reads cross each other",
    recipe=Recipe("slow", ("any-1", "any-2"), ((2.0, 6.0),), waits=(0.5, 1.5), recovery=0.5),
    links=True,
)
