"""N4: packets are lost by lot, to one node or to all."""

from chaos.lab import LOSS, NETWORK
from chaos.nemesis import Recipe
from chaos.scenarios import Scenario

SCENARIO = Scenario(
    name="packet-loss",
    title="5, 10 or 20 % of the packets that arrive at a node, or at all nodes, are lost",
    aim="I3 L1: TCP makes delays and broken connections of it; leaders flap, nothing is lost or doubled",
    recipe=Recipe("packet-loss", ("any-1", "all"), ((4.0, 8.0),), waits=(0.5, 1.5), recovery=2.0),
    rows_per_second_min=10.0,
    needs=(NETWORK, LOSS),
)
