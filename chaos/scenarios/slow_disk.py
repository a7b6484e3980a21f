"""S4: each sync of one node takes 0.2 s longer."""

from chaos.lab import STRACE
from chaos.nemesis import Recipe
from chaos.scenarios import Scenario

SCENARIO = Scenario(
    name="slow-disk",
    title="each fsync and fdatasync of one node waits 200 ms",
    aim="L1: W others are enough; one slow owner slows nobody",
    recipe=Recipe("slow-syncs", ("any-1",), ((3.0, 6.0),), waits=(0.5, 1.5), recovery=1.5),
    needs=(STRACE,),
)
