"""M1: a node has no file descriptors left."""

from chaos.nemesis import Recipe
from chaos.scenarios import Scenario

SCENARIO = Scenario(
    name="few-fds",
    title="one node may open nothing more, neither connections nor files",
    aim="I16 L1: it refuses, loses nothing, and goes on when it may",
    recipe=Recipe("few-fds", ("any-1",), ((2.0, 5.0),), waits=(0.5, 1.5), recovery=2.0),
)
