"""S4: writes of one node do not return, for seconds."""

from chaos.lab import DISK
from chaos.nemesis import Recipe
from chaos.scenarios import Scenario

SCENARIO = Scenario(
    name="stalled-disk",
    title="the file system of one node is frozen for 1 to 8 s, then goes on",
    aim="L1 I1: waiting is no failure and no success",
    recipe=Recipe("disk-stall", ("any-1",), ((1.0, 3.0), 8.0), waits=(0.5, 1.5), recovery=2.0),
    needs=(DISK,),
    settings="\n[storage]\nlog_file_bytes = 4194304\ndisk_floor_bytes = 67108864\n",
)
