"""N1: one node is cut off from the others, by silent loss; clients reach all of them."""

from chaos.lab import NETWORK
from chaos.nemesis import RAFT_LEADER, Recipe
from chaos.scenarios import Scenario

SCENARIO = Scenario(
    name="partition",
    title="one node of three is cut off from the others, in both directions",
    aim="I4 I9 I11: the side without a quorum promises nothing and answers nothing as complete",
    recipe=Recipe(
        "partition",
        ("any-1", RAFT_LEADER),
        ((1.0, 3.0), (4.0, 8.0)),
        waits=(0.5, 1.5),
        recovery=2.0,
    ),
    needs=(NETWORK,),
)
