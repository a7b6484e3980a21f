"""What is merged when: soon, never what is big, and no row more than O(log n) times."""

import math
import random

from storage.compaction_plan import (
    ENTRIES_MAX,
    FEW_SECONDS,
    MANY_BLOCKS,
    MERGE_MAX,
    REST_SECONDS,
    SOME_SECONDS,
    Piece,
    plan,
    undersized,
)
from storage.settings import StorageSettings

SETTINGS = StorageSettings()


def blocks(count: int, rows: int = 50, seen_at: float = 0.0) -> list[Piece]:
    return [Piece(n, rows, 8000, seen_at) for n in range(count)]


def segment(ordinal: int, rows: int, hour: int | None = 1, seen_at: float = 0.0) -> Piece:
    return Piece(ordinal, rows, rows * 20, seen_at, True, hour)


def test_many_small_blocks_are_merged_at_once() -> None:
    """64 of them are reason enough; 63 wait."""
    assert plan(blocks(MANY_BLOCKS - 1), 0.0, SETTINGS) == ()
    assert plan(blocks(MANY_BLOCKS), 0.0, SETTINGS) == tuple(range(MANY_BLOCKS))


def test_the_longer_they_wait_the_fewer_are_enough() -> None:
    """8 after two seconds, two after half a minute; one alone never."""
    assert plan(blocks(8), SOME_SECONDS, SETTINGS) == tuple(range(8))
    assert plan(blocks(7), SOME_SECONDS, SETTINGS) == ()
    assert plan(blocks(2), FEW_SECONDS, SETTINGS) == (0, 1)
    assert plan(blocks(1), 1e9, SETTINGS) == ()


def test_big_blocks_are_left_alone() -> None:
    """By rows, or by bytes; a segment may grow further than a block."""
    assert undersized(SETTINGS, False, 16_383, 1000)
    assert not undersized(SETTINGS, False, 16_384, 1000)
    assert undersized(SETTINGS, True, 16_384, 1000)
    assert not undersized(SETTINGS, True, 131_072, 1000)
    assert not undersized(SETTINGS, False, 10, SETTINGS.segment_bytes // 2)


def test_one_merge_is_bounded() -> None:
    """In pieces, in rows and in bytes."""
    assert len(plan(blocks(5000), 0.0, SETTINGS)) == MERGE_MAX
    assert len(plan(blocks(100, rows=10_000), 0.0, SETTINGS)) == SETTINGS.segment_rows // 10_000
    fat = [Piece(n, 10, 4 << 20, 0.0) for n in range(100)]
    assert len(plan(fat, 0.0, SETTINGS)) == 4
    many = [Piece(n, 10, 100, 0.0, entries=ENTRIES_MAX // 5) for n in range(100)]
    assert len(plan(many, 0.0, SETTINGS)) == 5
    assert not undersized(SETTINGS, True, 10, 100, ENTRIES_MAX // 2)


def test_segments_of_different_hours_do_not_meet() -> None:
    """Eight in eight hours stay; eight in one hour, or eight without one, are merged."""
    assert plan([segment(n, 100, hour=n) for n in range(8)], 0.0, SETTINGS) == ()
    assert plan([segment(n, 100, hour=n % 2) for n in range(16)], 0.0, SETTINGS) != ()
    assert plan([segment(n, 100, hour=None) for n in range(8)], 0.0, SETTINGS) == tuple(range(8))


def test_an_hour_at_rest_is_tidied_up() -> None:
    """Two like ones are enough then; a large one is not written again for a small one."""
    pair = [segment(0, 1000), segment(1, 1500)]
    assert plan(pair, REST_SECONDS - 1, SETTINGS) == ()
    assert plan(pair, REST_SECONDS, SETTINGS) == (0, 1)
    assert plan([segment(0, 10), segment(1, 50_000)], REST_SECONDS, SETTINGS) == ()


def test_no_row_is_rewritten_more_than_log_n_times() -> None:
    """A simulated trickle of 20,000 blocks at any pace: few pieces are left, and the work is bounded.

    A rewritten piece becomes at least 1.5 times as large as the largest part, so from r rows to R a row is
    written at most 1 + log(R / r) / log(1.5) times.
    """
    chance = random.Random(7)
    for pause in (0.02, 0.7, 5.0):
        now, ordinal, written, total = 0.0, 0, 0, 0
        pieces: dict[int, Piece] = {}
        for _ in range(20_000 if pause < 0.1 else 3000):
            rows = chance.randint(1, 100)
            pieces[ordinal] = Piece(ordinal, rows, rows * 50, now)
            total, ordinal, now = total + rows, ordinal + 1, now + pause
            for _ in range(3):
                chosen = [pieces.pop(n) for n in plan(pieces.values(), now, SETTINGS)]
                if not chosen:
                    break
                size = sum(one.rows for one in chosen)
                written += size
                if undersized(SETTINGS, True, size, size * 20):
                    pieces[ordinal] = segment(ordinal, size, seen_at=now)
                ordinal += 1

        assert written <= total * (1 + math.log(131_072) / math.log(1.5))
        assert written <= total * 8  # in practice
        assert len(pieces) <= MANY_BLOCKS + 8 * math.log2(total)
