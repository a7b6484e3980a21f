"""P7: a node kills itself at a named place: between write and sync, before a rename, before an answer."""

from chaos.nemesis import Recipe
from chaos.scenarios import Scenario

SCENARIO = Scenario(
    name="failpoints",
    title="a node is started with one place armed and kills itself in passing it",
    aim="I1 I2 I15: whatever was half done is whole or nothing after the start",
    recipe=Recipe("failpoint", ("any-1",), ((0.1, 1.0),), waits=(0.2, 0.8), recovery=5.0),
    settings="\n[storage]\ncompact_cpu_share = 1.0\ncompact_interval_seconds = 0.05\n",
)
