"""M1: a node gets no more memory."""

from chaos.lab import MEMORY
from chaos.nemesis import Recipe
from chaos.scenarios import Scenario

SCENARIO = Scenario(
    name="low-memory",
    title="one node may take 8, 32 or 96 MiB more and no further; the kernel may kill it",
    aim="I16 L1: it slows down, refuses or ends; the others go on, and nothing acknowledged is gone",
    recipe=Recipe("low-memory", ("any-1",), ((4.0, 8.0),), waits=(0.5, 1.5), recovery=4.0),
    needs=(MEMORY,),
)
