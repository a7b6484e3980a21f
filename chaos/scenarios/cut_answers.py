"""N5: each connection to one node ends in the middle of its first answer."""

from chaos.nemesis import Recipe
from chaos.scenarios import Scenario

SCENARIO = Scenario(
    name="cut-answers",
    title="connections to one or two nodes end in the middle of an answer",
    aim="I2 I5: half an answer is no answer; the same rows come again at once, many times",
    recipe=Recipe("cut-answers", ("any-1", "any-2"), ((1.0, 4.0),), waits=(0.5, 1.5), recovery=0.5),
    links=True,
)
