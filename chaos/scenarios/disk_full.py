"""S2: no byte is left on one node's disk: log, catalog and Raft journal alike."""

from chaos.lab import DISK
from chaos.nemesis import Recipe
from chaos.scenarios import Scenario

SCENARIO = Scenario(
    name="disk-full",
    title="the disk of one node is filled to the last byte, then there is room again",
    aim="I1 I16: refused aloud, nothing acknowledged is lost, and it writes again by itself",
    recipe=Recipe("disk-full", ("any-1",), ((2.0, 5.0),), waits=(0.5, 1.5), recovery=4.0),
    needs=(DISK,),
    settings="\n[storage]\nlog_file_bytes = 4194304\ndisk_floor_bytes = 0\ndisk_hysteresis_bytes = 0\n",
    disk_bytes=192 << 20,
)
