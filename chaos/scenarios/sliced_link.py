"""N4: answers arrive in pieces of 64 bytes."""

from chaos.nemesis import Recipe
from chaos.scenarios import Scenario

SCENARIO = Scenario(
    name="sliced-link",
    title="answers of one or two nodes arrive in pieces of about 64 bytes",
    aim="I2 I3: a piece is not an answer, and many are one",
    recipe=Recipe("sliced", ("any-1", "any-2"), ((2.0, 5.0),), waits=(0.5, 1.5), recovery=0.5),
    links=True,
)
