"""S3: fsync and fdatasync of one node fail: once, or each time."""

from chaos.lab import STRACE
from chaos.nemesis import Recipe
from chaos.scenarios import Scenario

SCENARIO = Scenario(
    name="sync-errors",
    title="syncs of one node answer EIO, once or always",
    aim="I1 I15: a file whose sync failed takes no more; no sync is tried again",
    recipe=Recipe(
        "sync-error-once",
        ("any-1",),
        ((1.0, 3.0),),
        waits=(0.5, 1.5),
        recovery=5.0,
        also=(Recipe("sync-errors", ("any-1",), ((1.0, 3.0),), waits=(0.5, 1.5), recovery=5.0),),
    ),
    needs=(STRACE,),
    rows_per_second_min=10.0,
)
