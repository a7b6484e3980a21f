"""R2: rows are deleted, and watermarks move, while a node is away; it comes back with all of them on disk."""

from chaos.nemesis import Recipe
from chaos.scenarios import Scenario

SCENARIO = Scenario(
    name="retention",
    title="rows are deleted or pass a watermark with a node killed or stopped; it comes back",
    aim="I7 I13: what is hidden shows nowhere again, and nothing else goes",
    recipe=Recipe(
        "hide",
        ("kill:delete", "pause:delete", "kill:watermark", "pause:watermark"),
        ((0.5, 4.0),),
        waits=(0.5, 1.0),
        recovery=5.0,
    ),
    settings="\n[storage]\ncompact_cpu_share = 1.0\ncompact_interval_seconds = 0.05\n"
    "\n[retention]\ninterval_seconds = 0.2\n",
)
