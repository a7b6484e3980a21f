"""N5: answers end after every number of bytes that they can end after, one after the other."""

from chaos.nemesis import Recipe
from chaos.scenarios import Scenario

SCENARIO = Scenario(
    name="cut-sweep",
    title="answers of one node end after 1, 2, 3 … bytes of head and body; each is asked for again",
    aim="I2 I5 N5 L2: no part of an answer is taken for one, wherever it ends",
    recipe=Recipe(
        "cut-sweep",
        ("/logs", "/ingest", "/query/stats", "/query"),
        (0.1,),
        waits=(0.5, 1.0),
        recovery=8.0,
    ),
    sweep=True,
)
