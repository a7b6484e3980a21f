"""All rollups end to end: each block is loaded once, what is gone makes room, what does not fit is said."""

import numpy as np
import pytest

from records.errors import BlockCorrupt
from records.sidecar import Rollup
from storage.entry_table import ENTRY_TYPE
from storage.rollup_index import INDEXED, UNKNOWN, WITHOUT, RollupIndex


def rollup(*cells: tuple[int, int, int, int, int]) -> Rollup:
    """A rollup of (entry, minute, service, level, count) cells."""
    columns = np.array(cells, np.int64).reshape(-1, 5).T
    return Rollup(("pay", "web"), ("info", "warn"), *columns)


def table(*places: tuple[int, int]) -> np.ndarray:
    """An entry table of (block, index) pairs."""
    rows = np.zeros(len(places), ENTRY_TYPE)
    rows["block"], rows["index"] = np.array(places).T
    return rows


class Loader:
    """Gives rollups, and remembers for which blocks it was asked."""

    def __init__(self, rollups: dict[int, Rollup | None]) -> None:
        self.rollups = rollups
        self.asked: list[int] = []

    def __call__(self, ordinal: int) -> Rollup | None:
        self.asked.append(ordinal)
        return self.rollups[ordinal]


def nobody() -> np.ndarray:
    raise AssertionError("there is room enough")


def test_cells_name_entries_by_their_number_and_each_block_is_loaded_once() -> None:
    """Entry 1 of block 0 was not accepted (it is not in the table): its cells count for nobody."""
    rows = table((0, 0), (0, 2), (1, 0))
    load = Loader({0: rollup((0, 5, 0, 1, 7), (1, 5, 0, 0, 9), (2, 6, 1, 1, 3)), 1: None})
    index = RollupIndex()

    index.covering(np.array([0]), rows, load, nobody)
    cells = index.covering(np.array([0, 1]), rows, load, nobody)

    assert load.asked == [0, 1]
    assert cells.number.tolist() == [0, 1]
    assert cells.minute.tolist() == [5, 6]
    assert cells.count.tolist() == [7, 3]
    named = [
        (cells.services[cells.pair_service[p]], cells.levels[cells.pair_level[p]])
        for p in cells.pair.tolist()
    ]
    assert named == [("pay", "warn"), ("web", "warn")]
    assert cells.state[:3].tolist() == [INDEXED, WITHOUT, UNKNOWN]


def test_blocks_that_are_gone_make_room_and_the_rest_is_left_to_be_read() -> None:
    """Three cells fit: block 0 gives way when it is gone, block 2 then fits, block 3 does not."""
    rows = table((0, 0), (1, 0), (2, 0), (3, 0))
    two = rollup((0, 1, 0, 0, 1), (0, 2, 0, 0, 2))
    load = Loader({0: two, 1: rollup((0, 1, 0, 0, 4)), 2: two, 3: two})
    index = RollupIndex(cells_max=3)
    before = index.covering(np.array([0, 1]), rows, load, nobody)

    after = index.covering(
        np.array([1, 2, 3]), rows, load, lambda: np.array([False, True, True, True])
    )

    assert before.block.tolist() == [0, 0, 1]
    assert after.block.tolist() == [1, 2, 2]
    assert after.state[:4].tolist() == [UNKNOWN, INDEXED, INDEXED, WITHOUT]
    assert index.cells == 3


def test_a_view_does_not_change_when_more_is_loaded() -> None:
    """A scan keeps the arrays it was given while another scan loads a block."""
    rows = table((0, 0), (1, 0))
    load = Loader({0: rollup((0, 1, 0, 0, 1)), 1: rollup((0, 2, 1, 1, 2))})
    index = RollupIndex()
    cells = index.covering(np.array([0]), rows, load, nobody)

    index.covering(np.array([1]), rows, load, nobody)

    assert cells.number.tolist() == [0]
    assert cells.state[:2].tolist() == [INDEXED, UNKNOWN]


def test_cells_follow_their_entries_to_new_numbers() -> None:
    """Block 0 is gone; entries 1 and 2 are now 0 and 1. Who still has the old numbers gets no cells."""
    load = Loader({0: rollup((0, 1, 0, 0, 1)), 1: rollup((0, 2, 1, 1, 2), (1, 3, 0, 0, 5))})
    index = RollupIndex()
    old = table((0, 0), (1, 0), (1, 1))
    before = index.covering(np.array([0, 1]), old, load, nobody)

    index.renumber(np.array([-1, 0, 1]), 1)
    after = index.covering(np.array([1]), table((1, 0), (1, 1)), load, nobody, 1)
    late = index.covering(np.array([0, 1]), old, load, nobody, 0)

    assert before.number.tolist() == [0, 1, 2]
    assert (after.number.tolist(), after.count.tolist()) == ([0, 1], [2, 5])
    assert after.state[:2].tolist() == [UNKNOWN, INDEXED]
    assert (len(late.number), late.state.tolist()) == (0, [UNKNOWN, UNKNOWN])
    assert load.asked == [0, 1]


def test_numbers_that_change_while_a_rollup_is_read_spoil_nothing() -> None:
    """The cells that were read for the old numbers are left out; the next scan reads them again."""
    index = RollupIndex()
    load = Loader({1: rollup((0, 2, 1, 1, 2))})

    def slow(ordinal: int) -> Rollup | None:
        index.renumber(np.array([-1, 0]), 1)
        return load(ordinal)

    during = index.covering(np.array([1]), table((0, 0), (1, 0)), slow, nobody, 0)
    after = index.covering(np.array([1]), table((1, 0)), load, nobody, 1)

    assert during.state.tolist() == [UNKNOWN, UNKNOWN]
    assert after.number.tolist() == [0]


def test_a_rollup_that_names_what_it_does_not_list_is_damage() -> None:
    """A forged code is no index error: the block is set aside like any damaged one."""
    load = Loader({0: rollup((0, 1, 9, 0, 1))})

    with pytest.raises(BlockCorrupt) as caught:
        RollupIndex().covering(np.array([0]), table((0, 0)), load, nobody)

    assert caught.value.details["ordinal"] == 0
