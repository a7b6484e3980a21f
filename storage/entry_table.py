"""All entries of a node as columns: about 135 bytes each, no object per entry. Pure.

Rows are appended as blocks are filed and keep their number until the table is packed (storage.repack); a
block's entries are neighbours. `GONE` rows belonged to a block that was quarantined, or merged into a
segment (then a later row stands for the entry); packing drops them, and so does a restart. Text (tenants,
producers) stands in a dictionary, once. What does not fit the fixed width (several spans of sequences,
skips, a hash that is not 16 bytes) sets `COMPLEX`: it is kept beside the table (storage.holdings).

Look-ups by id go through an open-addressing table of entry numbers, hashed by multiplication (Knuth, "The
Art of Computer Programming", volume 3, 6.4); the id column decides.
"""

import struct
from array import array
from bisect import bisect_left, bisect_right
from typing import Any

import numpy as np

from records.block import EntryHeader
from records.ids import ID_BYTES, producer_run

GONE = 1
COMPLEX = 2
#: Hidden as a whole: its `previous` is present, or all of its rows are held by older blocks.
HIDDEN = 4
#: Hidden by its `previous`; `HIDDEN` alone is by overlap. Both may hold.
HIDDEN_PREVIOUS = 8
HIDDEN_ANY = HIDDEN | HIDDEN_PREVIOUS
#: Its block has blanked rows (storage.erase).
ERASED = 16
NO_PRODUCER = -1

ENTRY_TYPE = np.dtype([
    ("id", "V16"), ("hash", "V16"), ("previous", "V16"),
    ("min_ts", "<i8"), ("max_ts", "<i8"), ("received", "<i8"),
    ("first_seq", "<i8"), ("last_seq", "<i8"),
    ("block", "<u4"), ("index", "<u4"), ("row_start", "<u4"), ("row_count", "<u4"),
    ("producer", "<i4"), ("tenant", "<u4"), ("shard", "<u2"), ("flags", "u1"),
])  # fmt: skip
#: The same bytes; packing a row is a quarter of the cost of assigning a tuple to an element of the array.
_ROW = struct.Struct("<16s16s16s5q4IiIHB")
NO_ID = bytes(ID_BYTES)
_MULTIPLIER = 0x9E3779B97F4A7C15
_U64 = (1 << 64) - 1


class Names:
    """Values numbered in order of appearance."""

    __slots__ = ("_numbers", "values")

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[Any, int] = {}

    def number(self, value: Any) -> int:
        """The number of `value`, given now if it is new."""
        number = self._numbers.get(value)
        if number is None:
            number = self._numbers[value] = len(self.values)
            self.values.append(value)
        return number

    def find(self, value: Any) -> int | None:
        """The number of `value`, None if it has none."""
        return self._numbers.get(value)


class Producers(Names):
    """Producer epochs by (shard, tenant, service, producer, epoch), each with the run of its rows."""

    __slots__ = ("runs",)

    def __init__(self) -> None:
        super().__init__()
        #: By number: the two halves of the run's id. Snapshots hold it; rows in use never change.
        self.runs = np.zeros((16, 2), np.uint64)

    def number(self, value: Any) -> int:
        """The number of `value`, given now if it is new."""
        known = self.find(value)
        if known is not None:
            return known
        number = super().number(value)
        if number == len(self.runs):
            self.runs = np.concatenate((self.runs, np.zeros_like(self.runs)))
        self.runs[number] = halves_of(producer_run(*value[1:]))
        return number

    def of_run(self, run: bytes) -> list[int]:
        """The numbers of a run, one for each shard that has rows of it."""
        known = self.runs[: len(self.values)]
        return np.flatnonzero((known == halves_of(run)).all(axis=1)).tolist()


def cells_of(column: np.ndarray) -> list[bytes]:
    """The 16-byte cells of a column."""
    data = np.ascontiguousarray(column).tobytes()
    return [data[at : at + ID_BYTES] for at in range(0, len(data), ID_BYTES)]


def halves_of(id_bytes: bytes) -> np.ndarray:
    """16 bytes as two whole numbers that sort as they do."""
    return np.frombuffer(id_bytes, ">u8").astype(np.uint64)


class IdIndex:
    """Entry numbers by 16-byte key. Invariant: at most 2/3 full; 0 is empty, number n is stored as n + 1.

    The slots are an `array`: reading one element of it is several times cheaper than of a numpy array.
    """

    __slots__ = ("_mask", "_shift", "_slots", "_used")

    def __init__(self) -> None:
        self._clear(1024)

    def _clear(self, size: int) -> None:
        self._slots = array("I", bytes(4 * size))
        self._mask, self._shift = size - 1, 65 - size.bit_length()
        self._used = 0

    def _slot(self, key: bytes) -> int:
        mixed = int.from_bytes(key[:8], "little") ^ int.from_bytes(key[8:], "little")
        return (mixed * _MULTIPLIER & _U64) >> self._shift

    def add(self, key: bytes, number: int, keys: np.ndarray) -> None:
        """Adds a number. `keys` is the key column, long enough for all numbers added so far."""
        if (self._used + 1) * 3 > len(self._slots) * 2:
            self._grow(keys)
        slots, mask, at = self._slots, self._mask, self._slot(key)
        while slots[at]:
            at = (at + 1) & mask
        slots[at] = number + 1
        self._used += 1

    def _numbers(self) -> np.ndarray:
        slots = np.frombuffer(self._slots, "<u4")
        return slots[slots != 0].astype(np.int64) - 1

    def _grow(self, keys: np.ndarray) -> None:
        numbers = self._numbers()
        self._clear(len(self._slots) * 4)
        self.add_all(numbers, keys)

    def add_all(self, numbers: np.ndarray, keys: np.ndarray) -> None:
        """Adds many, vectorised: each round gives every free slot to one of those that want it."""
        while (self._used + len(numbers)) * 3 > len(self._slots) * 2:
            numbers = np.concatenate((self._numbers(), numbers))
            self._clear(len(self._slots) * 4)
        slots = np.frombuffer(self._slots, "<u4")
        halves = np.ascontiguousarray(keys[numbers]).view("<u8").reshape(-1, 2)
        mixed = (halves[:, 0] ^ halves[:, 1]) * np.uint64(_MULTIPLIER)
        at = (mixed >> np.uint64(self._shift)).astype(np.int64)
        while len(numbers):
            free = slots[at] == 0
            slots[at[free]] = numbers[free] + 1
            placed = slots[at] == numbers + 1
            self._used += int(placed.sum())
            numbers, at = numbers[~placed], (at[~placed] + 1) & self._mask

    def find(self, key: bytes, keys: np.ndarray, flags: np.ndarray) -> list[int]:
        """Numbers under `key` whose rows are not gone, in no order."""
        slots, mask, at = self._slots, self._mask, self._slot(key)
        found: list[int] = []
        while slots[at]:
            number = slots[at] - 1
            if keys[number].tobytes() == key and not flags[number] & GONE:
                found.append(number)
            at = (at + 1) & mask
        return found

    def find_any(self, key: bytes, keys: np.ndarray) -> list[int]:
        """Numbers under `key`, of rows that are gone as well, in no order."""
        slots, mask, at = self._slots, self._mask, self._slot(key)
        found: list[int] = []
        while slots[at]:
            if keys[slots[at] - 1].tobytes() == key:
                found.append(slots[at] - 1)
            at = (at + 1) & mask
        return found

    @property
    def memory_bytes(self) -> int:
        """What the slots take."""
        return 4 * len(self._slots)


class EntryTable:
    """The columns, and the two indexes (by id, by previous id)."""

    def __init__(self) -> None:
        self.rows = np.zeros(1024, ENTRY_TYPE)
        #: Rows in use, and those of them that are GONE.
        self.count = self.gone = 0
        self.tenants, self.producers = Names(), Producers()
        self._ids, self._previous = IdIndex(), IdIndex()

    def add(self, entry: EntryHeader, block: int, index: int) -> int:
        """Appends an entry; its number."""
        number = self.count
        if number == len(self.rows):
            self._reserve(number + 1)
        rows: Any = self.rows  # a buffer, which its type does not tell
        _ROW.pack_into(rows, number * _ROW.size, *self._row(entry, block, index))
        self.count += 1
        self._ids.add(entry.entry_id, number, self.rows["id"])
        if entry.previous:
            self._previous.add(entry.previous, number, self.rows["previous"])
        return number

    def extend(self, rows: np.ndarray) -> int:
        """Appends rows that are filled in already; the number of the first."""
        first, end = self.count, self.count + len(rows)
        if end > len(self.rows):
            self._reserve(end)
        self.rows[first:end] = rows
        self.count = end
        self._index(np.arange(first, end, dtype=np.int64))
        return first

    def _index(self, numbers: np.ndarray) -> None:
        """Makes rows findable."""
        self._ids.add_all(numbers, self.rows["id"])
        chained = self.rows["previous"][numbers] != np.void(NO_ID)
        self._previous.add_all(numbers[chained], self.rows["previous"])

    def _reserve(self, wanted: int) -> None:
        """Room for more rows: pages that nobody has touched take no memory, so there is plenty."""
        grown = np.zeros(max(wanted, 2 * len(self.rows)), ENTRY_TYPE)
        grown[: self.count] = self.rows[: self.count]
        self.rows = grown

    def drop(self, numbers: np.ndarray | int) -> None:
        """Marks present rows as gone."""
        self.rows["flags"][numbers] |= GONE
        self.gone += np.size(numbers)

    def adopt(
        self, rows: np.ndarray, used: int, seen: int, ids: IdIndex, previous: IdIndex
    ) -> None:
        """Takes `used` packed rows for its own, and after them its rows from number `seen` on."""
        came = self.rows[seen : self.count]
        self.rows, self.count = rows, used
        self._ids, self._previous = ids, previous
        self.extend(came)
        self.gone = int(np.count_nonzero(self.rows["flags"][: self.count] & GONE))

    def _row(self, entry: EntryHeader, block: int, index: int) -> tuple:
        simple = len(entry.seqs) <= 1 and not entry.skips and len(entry.content_hash) == ID_BYTES
        producer = NO_PRODUCER
        if entry.sequenced:
            key = (entry.shard, *entry.producer_key, int(entry.producer_epoch))
            producer = self.producers.number(key)
        return (
            entry.entry_id,
            entry.content_hash[:ID_BYTES],
            entry.previous,
            entry.min_ts,
            entry.max_ts,
            entry.received_at,
            entry.seqs[0][0] if entry.seqs else 0,
            entry.seqs[-1][1] if entry.seqs else 0,
            block,
            index,
            entry.row_start,
            entry.row_count,
            producer,
            self.tenants.number(entry.tenant),
            entry.shard,
            0 if simple else COMPLEX,
        )

    def load(self, rows: np.ndarray, tenants: list[str], producers: list[tuple]) -> None:
        """Fills an empty table from a checkpoint."""
        assert self.count == 0
        self.rows, self.count = rows, len(rows)
        for value in tenants:
            self.tenants.number(value)
        for value in producers:
            self.producers.number(value)
        if not len(rows):
            self.rows = np.zeros(1024, ENTRY_TYPE)
            return
        live = np.flatnonzero((rows["flags"] & GONE) == 0)
        self.gone = len(rows) - len(live)
        self._index(live)

    def find(self, entry_id: bytes) -> int | None:
        """The number of a present entry."""
        found = self._ids.find(entry_id, self.rows["id"], self.rows["flags"])
        return found[0] if found else None

    def find_any(self, entry_id: bytes) -> int | None:
        """The number of an entry that is present, or was until not long ago (the next repack forgets it)."""
        found = self._ids.find_any(entry_id, self.rows["id"])
        return found[0] if found else None

    def find_successors(self, entry_id: bytes) -> list[int]:
        """The numbers of present entries whose `previous` is `entry_id`."""
        return self._previous.find(entry_id, self.rows["previous"], self.rows["flags"])

    def producer_entries(self, producer: int, first: int, last: int) -> list[int]:
        """Present entries of a producer whose hull of sequences meets first..last. One pass over columns."""
        rows = self.rows[: self.count]
        hit = rows["producer"] == producer
        hit &= (rows["first_seq"] <= last) & (rows["last_seq"] >= first)
        hit &= (rows["flags"] & GONE) == 0
        return np.flatnonzero(hit).tolist()

    def block_range(self, block: int) -> tuple[int, int]:
        """Half-open range of the numbers of a block's entries."""
        blocks = self.rows["block"]  # np.searchsorted would copy the whole column: it is strided
        low = bisect_left(blocks, block, 0, self.count)
        return low, bisect_right(blocks, block, low, self.count)

    @property
    def memory_bytes(self) -> int:
        """What the columns in use and the indexes take."""
        return (
            self.count * ENTRY_TYPE.itemsize + self._ids.memory_bytes + self._previous.memory_bytes
        )
