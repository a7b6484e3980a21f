"""The hot set: every flipped byte is found on the first read, memory is bounded, nothing is decoded twice."""

from pathlib import Path

import pytest

from records.block_codec import EncodedBlock
from records.errors import BlockCorrupt
from runtime.metrics import Metrics
from storage.holdings import BlockPlace
from storage.hot import HotSet
from storage.wal import file_name
from tests.unit.storage.samples import block_of, plain


def on_disk(directory: Path, *blocks: EncodedBlock) -> list[BlockPlace]:
    """Blocks one after another in a file, after 8 bytes of something else."""
    data, places = b"12345678", []
    for ordinal, block in enumerate(blocks):
        header = block.header
        length = len(block.data)
        places.append(
            BlockPlace(
                ordinal,
                header.block_id,
                1,
                len(data),
                length,
                header.rows,
                header.min_ts,
                header.max_ts,
            )
        )
        data += bytes(block.data)
    (directory / file_name(1)).write_bytes(data)
    return places


def test_gives_the_columns_that_exist(tmp_path: Path) -> None:
    """Absent names are left out; an empty block has none."""
    metrics = Metrics()
    place, empty = on_disk(tmp_path, block_of(1, plain(1, 3)), block_of(2))
    hot = HotSet(tmp_path, 1 << 20, metrics)

    found = hot.columns(place, ["message", "absent", "service"])

    assert found["message"].to_pylist() == ["row 1", "row 2", "row 3"]
    assert found["service"].to_pylist() == ["pay"] * 3
    assert set(found) == {"message", "service"}
    assert hot.columns(empty, ["message"]) == {}
    assert hot.names(empty) == ()
    read = metrics.snapshot()["quorumlog_hot_read_bytes_total"]
    hot.columns(place, ["message", "service"])
    assert metrics.snapshot()["quorumlog_hot_read_bytes_total"] == read


def test_memory_is_bounded_and_the_oldest_column_goes(tmp_path: Path) -> None:
    """Twenty blocks through a cache for a few: the bound holds after each."""
    places = on_disk(tmp_path, *(block_of(n, plain(n, 50)) for n in range(20)))
    hot = HotSet(tmp_path, 4000, Metrics())

    for place in places:
        assert len(hot.columns(place, ["message"])["message"]) == 50
        assert 0 < hot.cached_bytes <= 4000

    assert (places[-1].ordinal, "message") in hot._columns.known()
    assert (0, "message") not in hot._columns.known()


def test_every_flipped_byte_is_found_on_the_first_read(tmp_path: Path) -> None:
    """Prefix, header, sidecar or body: BlockCorrupt with the block's ordinal, never wrong rows."""
    block = block_of(1, plain(1, 3))
    (place,) = on_disk(tmp_path, block)
    path = tmp_path / file_name(1)
    whole = path.read_bytes()

    for at in range(place.offset, place.offset + place.length):
        data = bytearray(whole)
        data[at] ^= 0x20
        path.write_bytes(data)
        with pytest.raises(BlockCorrupt) as error:
            HotSet(tmp_path, 1 << 20, Metrics()).columns(place, ["message"])
        assert error.value.details["ordinal"] == 0


@pytest.mark.parametrize("cut", [0, 10, 100])
def test_a_shortened_or_missing_file_is_a_damaged_block(tmp_path: Path, cut: int) -> None:
    """Not an OSError, not an assertion."""
    (place,) = on_disk(tmp_path, block_of(1, plain(1, 3)))
    path = tmp_path / file_name(1)
    if cut:
        path.write_bytes(path.read_bytes()[: place.offset + cut])
    else:
        path.unlink()

    hot = HotSet(tmp_path, 1 << 20, Metrics())
    for read in (hot.sidecar, hot.header, hot.raw):
        with pytest.raises(BlockCorrupt) as error:
            read(place)
        assert error.value.details["ordinal"] == 0


def test_forgetting_drops_all_of_a_block(tmp_path: Path) -> None:
    """After quarantine nothing of it is served from memory."""
    places = on_disk(tmp_path, block_of(1, plain(1, 3)), block_of(2, plain(9, 3)))
    hot = HotSet(tmp_path, 1 << 20, Metrics())
    for place in places:
        hot.columns(place, ["message", "level"])
        hot.header(place)

    hot.forget(0)

    assert {key[0] for key in hot._columns.known()} == {1}
    assert {key if isinstance(key, int) else key[0] for key in hot._parts.known()} == {1}
    assert hot._headers.known() == [1]
