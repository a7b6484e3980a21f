"""P4: one node after another is told to end and started again: an upgrade."""

from chaos.nemesis import Recipe
from chaos.scenarios import Scenario

SCENARIO = Scenario(
    name="rolling-restart",
    title="SIGTERM and start of each node in turn, under load",
    aim="L1 I5: with W nodes there nothing is refused for long; nothing is lost on the way out",
    recipe=Recipe("restart", ("next-1",), ((0.1, 1.0),), waits=(0.5, 1.0), recovery=3.0),
)
