"""X: faults of all kinds that need no laboratory, one after another by lot."""

from chaos.nemesis import RAFT_LEADER, Recipe
from chaos.scenarios import Scenario

_ANY: tuple[float, float] = (0.5, 1.0)
SCENARIO = Scenario(
    name="mix",
    title="kills, pauses, restarts, failpoints, links and clocks, by lot",
    aim="all: what each alone does not break, their order may",
    recipe=Recipe(
        "kill",
        ("any-1", "any-2", "all", RAFT_LEADER),
        ((0.1, 3.0),),
        waits=_ANY,
        recovery=4.0,
        also=(
            Recipe("pause", ("any-1", RAFT_LEADER), (0.2, 1.0, 5.0), waits=_ANY, recovery=0.5),
            Recipe("restart", ("any-1",), ((0.1, 1.0),), waits=_ANY, recovery=3.0),
            Recipe("failpoint", ("any-1",), ((0.1, 1.0),), waits=_ANY, recovery=5.0),
            Recipe("lose-replies", ("any-1", "any-2"), ((1.0, 4.0),), waits=_ANY, recovery=1.0),
            Recipe("cut-answers", ("any-1", "any-2"), ((1.0, 3.0),), waits=_ANY, recovery=0.5),
            Recipe("swizzle", ("any-2", "all"), ((0.5, 2.0),), waits=_ANY, recovery=2.0),
            Recipe("clock-jump", ("any-1", "any-2"), ((1.0, 3.0),), waits=_ANY, recovery=0.5),
        ),
    ),
    rows_per_second_min=10.0,
    links=True,
    clocks=True,
)
