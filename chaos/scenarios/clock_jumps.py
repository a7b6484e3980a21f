"""C1: wall clocks jump by half a minute, an hour, a day, forth and back."""

from chaos.nemesis import Recipe
from chaos.scenarios import Scenario

SCENARIO = Scenario(
    name="clock-jumps",
    title="the wall clocks of one or two nodes jump by -1 h, -30 s, +30 s, +1 h or a day",
    aim="I5 I11 I17: no clock decides what survives, or who leads",
    recipe=Recipe("clock-jump", ("any-1", "any-2"), ((1.0, 4.0),), waits=(0.3, 1.0), recovery=0.5),
    clocks=True,
)
