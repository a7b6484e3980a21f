"""What heals simulated nodes: the judge of it must be able to fail, and must not see what is not there."""

from types import SimpleNamespace
from typing import Any

import pytest

from chaos.sim.checks import unexcused
from chaos.sim.clock import Dice
from chaos.sim.healing import HINT_BYTES_MAX, HINTS, healed, storage_settings
from chaos.sim.looks import Looks
from chaos.sim.node import STORAGE
from chaos.sim.pages import SimFile
from chaos.sim.plan import ROTS
from chaos.sim.rot import rot
from chaos.sim.taps import TappedDisk, Written, header_of_segment
from records.block_codec import EncodedBlock
from storage.segment_file import segment_parts
from tests.unit.storage.samples import block_of, plain

BLOCK = block_of(1, plain(100, 30), plain(200, 5))


def disk_with(*blocks: EncodedBlock) -> TappedDisk:
    """A disk whose log file holds blocks, all of it synced, its name too."""
    disk = TappedDisk("n", Dice(1))
    name, file, at = "store/log/1.qlog", SimFile(), 0
    disk.names[name] = disk.durable_names[name] = file
    for block in blocks:
        data = bytes(block.data)
        file.write(at, data)
        indexes = tuple(range(len(block.header.entries)))
        disk.written.append(Written(file, name, at, data, block.header, indexes, synced=True))
        file.sync()
        at += len(data)
    return disk


def node_of(disk: TappedDisk) -> Any:
    return SimpleNamespace(disk=disk)


@pytest.mark.parametrize("kind", ROTS[:2])
def test_only_what_another_owner_holds_rots(kind: str) -> None:
    """A block that both others lack stays whole; one that one has is damaged, and known to be."""
    whole, lacking = node_of(disk_with(BLOCK)), node_of(disk_with())
    one = disk_with(BLOCK)

    assert not rot(node_of(one), [lacking, lacking], kind, Dice(3))
    assert one.written[0].whole
    assert rot(node_of(one), [whole, lacking], kind, Dice(3))
    assert one.written[0].rotten
    assert not one.written[0].whole


def test_an_entry_may_leave_a_store_only_if_its_newest_copy_rotted() -> None:
    """Without damage it may not; with damage it may; not if a later copy, of a repair, is whole."""
    disk, ids = disk_with(BLOCK), {bytes(one.entry_id) for one in BLOCK.header.entries}
    assert unexcused(disk, ids) == []
    assert len(unexcused(disk, set())) == 2

    disk.written[0].rotten = True
    assert unexcused(disk, set()) == []

    repaired = disk_with(BLOCK, BLOCK)
    repaired.written[0].rotten = True
    assert len(unexcused(repaired, set())) == 2


def test_a_copy_whose_file_was_removed_is_none() -> None:
    """Not for what must be held, nor for what may rot elsewhere; also before its folder is synced."""
    one = disk_with(BLOCK)
    draft = Written(
        SimFile(), "store/segments/1.new", 0, b"rows", BLOCK.header, (0, 1), synced=True
    )
    draft.file.write(0, draft.data)
    draft.file.sync()
    one.names["store/segments/1.parquet"] = one.durable_names["store/segments/1.parquet"] = (
        draft.file
    )
    one.written.append(draft)
    one.written[0].rotten = True
    assert len(unexcused(one, set())) == 2

    del one.names["store/segments/1.parquet"]
    assert unexcused(one, set()) == []
    assert list(one.on_platter()) == one.written[:1]

    removed = disk_with(BLOCK)
    removed.names.clear()
    assert not rot(node_of(disk_with(BLOCK)), [node_of(removed)], ROTS[0], Dice(3))


def test_hints_above_their_cap_at_two_looks_are_told() -> None:
    """Once is the moment between a write and the trimming."""
    disk, broken = disk_with(), list[tuple[str, str]]()
    path = disk.path("store/hints/62") / "1.hints"
    path.write_bytes(bytes(HINT_BYTES_MAX + 1))
    node: Any = SimpleNamespace(id="a", disk=disk, present=set)
    nobody: Any = None
    looks = Looks(nobody, broken)

    looks.look(node)
    assert broken == []
    looks.look(node)
    assert [name for name, _ in broken] == ["I16"]


def test_a_segment_is_read_by_the_judge_as_its_writer_meant_it() -> None:
    """The header of the block, from the bytes of the file."""
    data = b"".join(segment_parts(BLOCK.data))

    assert header_of_segment(data) == BLOCK.header


def test_a_part_that_a_seed_has_not_is_off() -> None:
    """Settings of the store; and counts are told by what healed."""
    found = storage_settings(STORAGE, (HINTS,))

    assert (found.compact, found.hint_bytes_max, found.scrub_period_seconds) == (False, 512, 0.0)
    counts: Any = {
        "quorumlog_sync_entries_total stored": 3,
        "quorumlog_sync_entries_total settled": 9,
    }
    assert healed(counts) == {"entries healed by anti-entropy": 3}
