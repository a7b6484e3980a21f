"""N2: two nodes do not reach each other, both reach the third."""

from chaos.lab import NETWORK
from chaos.nemesis import Recipe
from chaos.scenarios import Scenario

SCENARIO = Scenario(
    name="partial-cut",
    title="two of three nodes do not reach one another; both reach the third",
    aim="I11 L1: they do not agree who is there, and must not act on it twice",
    recipe=Recipe(
        "partial-cut", ("any-2",), ((1.0, 3.0), (4.0, 8.0)), waits=(0.5, 1.5), recovery=2.0
    ),
    needs=(NETWORK,),
)
