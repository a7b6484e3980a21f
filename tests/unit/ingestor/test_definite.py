"""Of numbered rows: `definite: true` only where no put of the request may have stored anything."""

from ingestor.write_settings import WriteSettings
from records.errors import DiskFull
from tests.support.fake_replica import Fault
from tests.support.write_path import Path, numbered_batch, write_path

QUICK = WriteSettings(disk_full_hold_seconds=0.1)
FULL = DiskFull("below the floor")


async def refusal(path: Path, seqs: list[int]) -> bool:
    """Whether the refusal of these rows is said to be definite."""
    try:
        await path.write(numbered_batch(seqs))
    except DiskFull as error:
        return error.to_dict()["definite"]
    raise AssertionError("it was taken")


async def test_full_disks_are_definite_for_rows_that_were_never_put() -> None:
    """All owners refused them: the producer may do as it likes."""
    async with write_path(settings=QUICK) as path:
        for node in "abc":
            path.replicas[node].broken["put"] = FULL

        assert await refusal(path, [1]) is True


async def test_full_disks_are_not_definite_for_rows_that_a_holder_has_judged() -> None:
    """1..3 are durable. Sent again, a holder has them, as it said just before all owners refused them."""
    async with write_path(settings=QUICK) as path:
        path.replicas["c"].down = True
        await path.write(numbered_batch([1, 2, 3]))
        path.replicas["c"].down = False
        for node in "abc":
            path.replicas[node].broken["put"] = FULL
        for node in "ab":
            path.replicas[node].faults.append(Fault())  # the first put goes through
        before = [path.replicas[node].calls.count("put") for node in "abc"]

        assert await refusal(path, [1, 2, 3]) is False
        asked = [path.replicas[node].calls.count("put") for node in "abc"]
        assert all(now > then for now, then in zip(asked, before, strict=True))
