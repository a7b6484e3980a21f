"""N2: what one node sends to the others is lost; what they send arrives."""

from chaos.lab import NETWORK
from chaos.nemesis import RAFT_LEADER, Recipe
from chaos.scenarios import Scenario

SCENARIO = Scenario(
    name="one-way",
    title="packets of one node to the others are lost, in that direction alone",
    aim="I11 L1: half a connection is none, and nobody leads by it",
    recipe=Recipe(
        "one-way", ("any-1", RAFT_LEADER), ((1.0, 3.0), (4.0, 8.0)), waits=(0.5, 1.5), recovery=2.0
    ),
    needs=(NETWORK,),
)
