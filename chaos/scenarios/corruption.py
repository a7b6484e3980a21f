"""S5: files of one node, always the same, are damaged while it is down."""

from chaos.nemesis import Recipe
from chaos.scenarios import Scenario

SCENARIO = Scenario(
    name="corruption",
    title="flipped bits, zeroed pages, torn tails, lost files on one node",
    aim="I3 I14: damage is found, never served, never spread; the others have the rows",
    recipe=Recipe("corrupt", ("same-1",), ((0.1, 0.5),), waits=(1.0, 2.0), recovery=3.0),
    settings="\n[storage]\nlog_file_bytes = 1048576\n",
)
