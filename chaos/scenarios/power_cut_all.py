"""S1: all nodes lose power at once."""

from chaos.lab import DISK
from chaos.nemesis import Recipe
from chaos.scenarios import Scenario

SCENARIO = Scenario(
    name="power-cut-all",
    title="power cut of all nodes at once: nothing but what was synced is left anywhere",
    aim="I1 I9 I10: acknowledged means synced on W disks; the Raft group knows what it promised",
    recipe=Recipe("power-cut", ("all",), ((0.1, 0.5),), waits=(0.5, 1.5), recovery=4.0),
    needs=(DISK,),
    rows_per_second_min=10.0,
    settings="\n[storage]\nlog_file_bytes = 4194304\ndisk_floor_bytes = 67108864\n",
)
