"""P2: kill -9 of all nodes at once. What was acknowledged is on disks, or it is lost."""

from chaos.nemesis import Recipe
from chaos.scenarios import Scenario

SCENARIO = Scenario(
    name="kill-all",
    title="kill -9 of all nodes at once, under load; all are started again",
    aim="I1 I2 I9: acknowledged means on disk; what senders are told before and after agrees",
    recipe=Recipe("kill", ("all",), ((0.1, 1.5),), waits=(1.0, 2.5), recovery=4.0),
)
