"""S1: one node after another loses power: what no fsync made durable is gone."""

from chaos.lab import DISK
from chaos.nemesis import Recipe
from chaos.scenarios import Scenario

SCENARIO = Scenario(
    name="power-cut",
    title="power cut of one node at a time (ext4, unsynced data and journal lost)",
    aim="I1 I9 I15: W syncs before an answer; a start finds what was synced, and no more",
    recipe=Recipe("power-cut", ("any-1",), ((0.1, 1.5),), waits=(0.3, 1.2), recovery=2.5),
    needs=(DISK,),
    settings="\n[storage]\nlog_file_bytes = 4194304\ndisk_floor_bytes = 67108864\n",
)
