"""Holdings: everything a node has stored, indexed. The log replayed into memory. Pure.

Adding blocks in log order gives the same holdings as loading a checkpoint and adding the rest. What is
hidden of an entry is kept as it changes and equals `records.visibility.hidden_parts` over a shard's entries.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np

from records.block import BlockHeader, EntryHeader, Spans
from records.columns import ERASED_COLUMN
from records.ids import EntryId
from records.timestamps import MAX_ENTRY_HOURS, MICROS_PER_HOUR, hour_of, hours_touched
from records.visibility import EntryRef, Hidden, hidden_parts, repeats
from storage.blocks import BlockPlace, Blocks
from storage.entry_table import (
    COMPLEX,
    ERASED,
    GONE,
    HIDDEN,
    HIDDEN_ANY,
    HIDDEN_PREVIOUS,
    NO_ID,
    NO_PRODUCER,
    EntryTable,
    cells_of,
)
from storage.holes import Holes
from storage.merkle import EMPTY, Digest, MerkleTree
from storage.producers import GroupKey, ProducerBook
from storage.repack import Packed, renumbering
from storage.retention import Retention

#: Of an entry that is COMPLEX: content hash, seqs, skips.
Extra = tuple[bytes, Spans, Spans]


class Holdings:
    """The entry table, blocks, Merkle trees and producers of a node."""

    def __init__(self) -> None:
        self.table = EntryTable()
        self.blocks = Blocks()
        #: Counts how often entries got new numbers; a number is of one generation.
        self.generation = 0
        self.producers = ProducerBook()
        self.trees: dict[int, MerkleTree] = {}
        self.extras: dict[int, Extra] = {}
        #: Entries of which some rows (not all) are hidden: the hidden sequences.
        self.partly_hidden: dict[int, Spans] = {}
        self.dirty_hidden: set[int] = set()
        self.rows = self.bytes = 0
        #: The newest receipt heard of, microseconds; see `hear`.
        self.received_max = 0
        #: A moment, microseconds, before which this node may have vouched for copies of later receipts
        #: than it heard of: before a restart, in a producer's state, or who owned a shard before it.
        #: Snapshots reach to it; a delete does not, as a clock is no receipt.
        self.vouched_until = 0
        #: Blocks set aside for damage.
        self.quarantined = 0
        #: Shards that lost entries by that, until they are whole again.
        self.holes = Holes()
        #: What watermarks and deletes hide, as of the newest replicated state seen.
        self.retention = Retention()
        #: By rule, a mask by block ordinal: blocks in which it hides nothing that is not blanked.
        self.clean: dict[str, np.ndarray] = {}

    # -- adding -----------------------------------------------------------------------------------

    def add_block(self, header: BlockHeader, accepted: Sequence[int], place: BlockPlace) -> None:
        """Files the accepted entries of a block. They must be absent (the engine has seen to that)."""
        self.blocks.add(place)
        self.bytes += place.length
        erased = ERASED_COLUMN in header.columns
        for index in accepted:
            self._add_entry(header.entries[index], place.ordinal, index)
            if erased:
                self.table.rows["flags"][self.table.count - 1] |= ERASED

    def _add_entry(self, entry: EntryHeader, ordinal: int, index: int) -> None:
        overlaps = bool(entry.seqs) and bool(self.producers.overlap(entry))
        number = self.table.add(entry, ordinal, index)
        if self.table.rows["flags"][number] & COMPLEX:
            self.extras[number] = (entry.content_hash, entry.seqs, entry.skips)
        self.tree(entry.shard).add(entry.entry_id, entry.content_hash, entry.hours)
        self.rows += entry.row_count
        self.hear((entry.received_at,))
        if entry.sequenced:
            self.producers.add(entry)
        if overlaps:
            self._hide_overlaps(number)
        known = bool(entry.previous) and self.table.find(entry.previous) is not None
        if known and self._is_repeat(number):
            self._flag(number, HIDDEN_PREVIOUS, True)
        self._decide_successors(entry.entry_id)
        if self.holes:
            self.holes.arrived(entry.shard, entry.entry_id)

    def hear(self, received: Iterable[int]) -> None:
        """Takes note of receipts, microseconds: of what is stored, and of duplicates.

        A duplicate was received later than the copy here, and an owner that lacked it has it with that time.
        This node vouches for both: a snapshot that it helps to choose must not leave out the later one.
        """
        self.received_max = max(self.received_max, max(received, default=0))

    @property
    def newest_vouched(self) -> int:
        """No copy of what this node vouched for was received later, anywhere; microseconds."""
        return max(self.received_max, self.vouched_until)

    def vouch(self, until: int) -> None:
        """Raises `vouched_until`."""
        self.vouched_until = max(self.vouched_until, until)

    def _is_repeat(self, number: int) -> bool:
        """Whether the entry is hidden by the one it repeats; see records.visibility."""
        row = self.table.rows[number]
        found = self.table.find(EntryId(row["previous"].tobytes()))
        if found is None:
            return False
        before = self.table.rows[found]
        hidden = bool(before["flags"] & HIDDEN_PREVIOUS)
        return repeats(int(row["received"]), int(before["received"]), hidden)

    def _decide_successors(self, entry_id: EntryId) -> None:
        """Decides anew about the entries that repeat this one, and along the chain while that changes."""
        waiting = list(self.table.find_successors(entry_id))
        while waiting:
            number = waiting.pop()
            repeat = self._is_repeat(number)
            if repeat != bool(self.table.rows["flags"][number] & HIDDEN_PREVIOUS):
                self._flag(number, HIDDEN_PREVIOUS, repeat)
                waiting += self.table.find_successors(
                    EntryId(self.table.rows["id"][number].tobytes())
                )

    def _flag(self, number: int, flag: int, value: bool) -> None:
        flags = int(self.table.rows["flags"][number])
        self.table.rows["flags"][number] = flags | flag if value else flags & ~flag
        self.dirty_hidden.add(number)

    def _hide_overlaps(self, number: int) -> None:
        """Works out anew what is hidden of an entry and of those it overlaps."""
        row = self.table.rows[number]
        producer = int(row["producer"])
        near = self.table.producer_entries(producer, int(row["first_seq"]), int(row["last_seq"]))
        hulls = self.table.rows[near]
        first, last = int(hulls["first_seq"].min()), int(hulls["last_seq"].max())
        self._set_hidden(near, self.table.producer_entries(producer, first, last))

    def _set_hidden(self, numbers: Sequence[int], among: Sequence[int]) -> None:
        """Sets what overlap hides of `numbers`; `among` holds all that overlap any of them."""
        refs = {number: self.ref(number) for number in among}
        hidden = hidden_parts([_without_previous(ref) for ref in refs.values()])
        for number in numbers:
            part = hidden.get(refs[number].entry_id, Hidden())
            self._flag(number, HIDDEN, part.whole)
            if part.seqs and not part.whole:
                self.partly_hidden[number] = part.seqs
            else:
                self.partly_hidden.pop(number, None)

    def load(
        self, rows: np.ndarray, tenants: list[str], producers: list[tuple], extras: dict[int, list]
    ) -> None:
        """Fills empty holdings from a checkpoint; blocks, hidden parts and producers are set already."""
        self.table.load(rows, tenants, producers)
        for number, (content_hash, seqs, skips) in extras.items():
            self.extras[number] = (content_hash, _spans(seqs), _spans(skips))
        live = np.flatnonzero((rows["flags"] & GONE) == 0)
        self.rows = int(rows["row_count"][live].sum())
        self.bytes = sum(place.length for place in self.blocks)
        self.hear((int(rows["received"][live].max()),) if len(live) else ())
        self._load_trees(rows, live)

    def _load_trees(self, rows: np.ndarray, live: np.ndarray) -> None:
        """Files all live entries: those of one hour by the thousand, the others one by one."""
        first = rows["min_ts"][live] // MICROS_PER_HOUR
        single = first == rows["max_ts"][live] // MICROS_PER_HOUR
        for n in live[~single].tolist():
            hours = hours_touched(int(rows["min_ts"][n]), int(rows["max_ts"][n]))
            tree = self.tree(int(rows["shard"][n]))
            tree.add(rows["id"][n].tobytes(), self.content_hash(n), hours)
        simple, first = live[single], first[single]
        for shard in np.unique(rows["shard"][simple]).tolist():
            chosen = rows["shard"][simple] == shard
            numbers = simple[chosen]
            ids = cells_of(rows["id"][numbers])
            hashes = cells_of(rows["hash"][numbers])
            for position, number in enumerate(numbers.tolist()) if self.extras else ():
                if number in self.extras:
                    hashes[position] = self.extras[number][0]
            self.tree(shard).add_many(ids, hashes, first[chosen])

    # -- merging ----------------------------------------------------------------------------------

    def refile(
        self,
        place: BlockPlace,
        numbers: np.ndarray,
        row_starts: np.ndarray,
        erased: bool = False,
    ) -> None:
        """Files entries anew, under a segment that holds a copy of their rows.

        Nothing but their place changes: identity, what is hidden, trees and producers stay. The old rows
        turn GONE, so a snapshot taken before still reads the old blocks. Entries gone by now are left out.

        Args:
            numbers: entry numbers in the order of the segment's header.
            row_starts: first row of each in the segment.
            erased: whether the segment has blanked rows.
        """
        self.blocks.add(place)
        self.bytes += place.length
        index = np.flatnonzero((self.table.rows["flags"][numbers] & GONE) == 0)
        old = numbers[index]
        moved = self.table.rows[old]
        moved["block"], moved["index"] = place.ordinal, index
        moved["row_start"] = row_starts[index]
        moved["flags"] = moved["flags"] & (0xFF ^ ERASED) | (ERASED if erased else 0)
        self.table.drop(old)
        first = self.table.extend(moved)
        hidden = np.flatnonzero(moved["flags"] & HIDDEN_ANY)
        self.dirty_hidden.update((hidden + first).tolist())
        self._carry_over(old, first)

    def _carry_over(self, old: np.ndarray, first: int) -> None:
        """What is kept by number goes from `old` to the numbers from `first` on."""
        self.dirty_hidden.difference_update(old.tolist())
        if not self.extras and not self.partly_hidden:
            return
        for new, number in enumerate(old.tolist(), first):
            if number in self.extras:
                self.extras[new] = self.extras.pop(number)
            if number in self.partly_hidden:
                self.partly_hidden[new] = self.partly_hidden.pop(number)
                self.dirty_hidden.add(new)

    def present(self, ordinal: int) -> np.ndarray:
        """Numbers of the present entries of a block."""
        low, high = self.table.block_range(ordinal)
        return low + np.flatnonzero((self.table.rows["flags"][low:high] & GONE) == 0)

    def drop_merged(self, ordinal: int) -> bool:
        """Forgets a block all of whose entries were filed elsewhere; False if some were not."""
        place = self.blocks[ordinal]
        if place is None or len(self.present(ordinal)):
            return False
        self.blocks.remove(ordinal)
        self.bytes -= place.length
        return True

    def adopt(self, packed: Packed) -> np.ndarray:
        """Swaps the table for its packed copy (storage.repack); new number by old number, -1 of dropped rows.

        Entries keep everything but their number. Flags are those of now, not of when packing began.
        """
        table = self.table
        moved = renumbering(packed, table.count)
        packed.rows["flags"][: len(packed.kept)] = table.rows["flags"][packed.kept]
        table.adopt(packed.rows, len(packed.kept), packed.seen, packed.ids, packed.previous)
        self.generation += 1
        self.extras = {int(moved[n]): one for n, one in self.extras.items() if moved[n] >= 0}
        hidden = self.partly_hidden.items()
        self.partly_hidden = {int(moved[n]): spans for n, spans in hidden if moved[n] >= 0}
        self.dirty_hidden = {int(moved[n]) for n in self.dirty_hidden if moved[n] >= 0}
        return moved

    # -- removing ---------------------------------------------------------------------------------

    def expire(self, numbers: np.ndarray) -> list[int]:
        """Forgets entries below the watermark; the ordinals of blocks that have none left.

        Their producers' sequences stay, as does what they hid: it is below the watermark as well.
        """
        for number in numbers.tolist():
            self._remove_entry(number)
        self.dirty_hidden.difference_update(numbers.tolist())
        blocks = np.unique(self.table.rows["block"][numbers]).tolist()
        return [ordinal for ordinal in blocks if not len(self.present(ordinal))]

    def remove_block(self, ordinal: int) -> list[int]:
        """Forgets the entries of a damaged block: this replica is now missing them. Their numbers."""
        place = self.blocks[ordinal]
        if place is None:
            return []
        removed = self.present(ordinal)
        numbers = removed.tolist()
        self._note_holes(removed)
        for number in numbers:
            self._remove_entry(number)
        self.blocks.remove(ordinal)
        self.quarantined += 1
        self.bytes -= place.length
        for entry_id in cells_of(self.table.rows["id"][removed]):
            self._decide_successors(EntryId(entry_id))
        self._recount_producers(removed)
        return numbers

    def _note_holes(self, removed: np.ndarray) -> None:
        rows = self.table.rows[removed]
        for shard in np.unique(rows["shard"]).tolist():
            ids = cells_of(rows["id"][rows["shard"] == shard])
            self.holes.add(shard, ids, self.newest_vouched)

    def forget_shards(self, shards: Collection[int], numbers: np.ndarray) -> None:
        """Forgets `numbers`, all present entries of `shards`; epochs and what was told stay."""
        self.rows -= int(self.table.rows["row_count"][numbers].sum())
        self.table.drop(numbers)
        for shard in shards:
            self.trees.pop(shard, None)
        for number in numbers.tolist() if self.extras or self.partly_hidden else ():
            self.extras.pop(number, None)
            self.partly_hidden.pop(number, None)
        for key in [key for key in self.producers.held if key[0] in shards]:
            self.producers.reset(key)
        self.holes.forget(shards)

    def _remove_entry(self, number: int) -> None:
        row = self.table.rows[number]
        hours = hours_touched(int(row["min_ts"]), int(row["max_ts"]))
        self.tree(int(row["shard"])).remove(row["id"].tobytes(), self.content_hash(number), hours)
        self.rows -= int(row["row_count"])
        self.table.drop(number)
        self.extras.pop(number, None)
        self.partly_hidden.pop(number, None)

    def _recount_producers(self, removed: np.ndarray) -> None:
        """Works out anew what is held of the producers of entries that are gone, and what these hid.

        A few passes over columns, then the entries near the removed ones: a producer may have very many.
        """
        rows = self.table.rows[: self.table.count]
        affected = np.setdiff1d(rows["producer"][removed], NO_PRODUCER)
        if not len(affected):
            return
        left = np.flatnonzero(np.isin(rows["producer"], affected) & ((rows["flags"] & GONE) == 0))
        left = left[np.argsort(rows["producer"][left], kind="stable")]
        ends = np.searchsorted(rows["producer"][left], affected, side="right")[:-1]
        for producer, numbers in zip(affected.tolist(), np.split(left, ends), strict=True):
            gone = removed[rows["producer"][removed] == producer]
            self._recount_producer(producer, numbers)
            near = self._meeting(numbers, gone)
            if len(near):
                self._set_hidden(near.tolist(), self._meeting(numbers, near).tolist())

    def _recount_producer(self, producer: int, numbers: np.ndarray) -> None:
        """The sequences held of a producer are those of its entries `numbers`."""
        key: GroupKey = self.table.producers.values[producer]
        self.producers.reset(key)
        rows = self.table.rows[numbers]
        simple = (rows["flags"] & COMPLEX) == 0
        plain = rows[simple & (rows["last_seq"] > 0)]
        if len(plain):
            self.producers.insert(key, _joined(plain["first_seq"], plain["last_seq"]), ())
        for number in numbers[~simple].tolist():
            self.producers.insert(key, *self.spans(number))

    def _meeting(self, numbers: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Those of `numbers` whose hull of sequences meets the hull of all `others`."""
        rows = self.table.rows
        first, last = rows["first_seq"][others].min(), rows["last_seq"][others].max()
        return numbers[(rows["first_seq"][numbers] <= last) & (rows["last_seq"][numbers] >= first)]

    # -- retention --------------------------------------------------------------------------------

    def is_clean(self, rule: str, ordinals: np.ndarray) -> np.ndarray:
        """Which of these blocks are known to hold nothing that a rule hides, but what is blanked."""
        known = self.clean.get(rule)
        if known is None or not len(known):
            return np.zeros(len(ordinals), bool)
        return known[np.minimum(ordinals, len(known) - 1)] & (ordinals < len(known))

    def mark_clean(self, rule: str, ordinal: int) -> None:
        """The block was looked through for the rule. Readers may hold the mask: it is replaced."""
        known = self.clean.get(rule, np.zeros(0, bool))
        grown = np.zeros(max(len(known), ordinal + 1, self.blocks.end), bool)
        grown[: len(known)] = known
        grown[ordinal] = True
        self.clean[rule] = grown

    # -- asking -----------------------------------------------------------------------------------

    def tree(self, shard: int) -> MerkleTree:
        """The tree of a shard, made when first asked for."""
        if shard not in self.trees:
            self.trees[shard] = MerkleTree()
        return self.trees[shard]

    def digest(self, shard: int, start: int, end: int) -> Digest:
        """Digest of a shard over the hours that start..end touches."""
        tree = self.trees.get(shard)
        return tree.digest(start, end) if tree else EMPTY

    def entries_by_shard(self) -> dict[int, int]:
        """How many entries are present of each shard. One pass over the table."""
        rows = self.table.rows[: self.table.count]
        shards, counts = np.unique(rows["shard"][(rows["flags"] & GONE) == 0], return_counts=True)
        return dict(zip(shards.tolist(), counts.tolist(), strict=True))

    def content_hash(self, number: int) -> bytes:
        """An entry's content hash."""
        extra = self.extras.get(number)
        return extra[0] if extra else self.table.rows["hash"][number].tobytes()

    def spans(self, number: int) -> tuple[Spans, Spans]:
        """(sequences with rows, skips) of an entry."""
        extra = self.extras.get(number)
        if extra:
            return extra[1], extra[2]
        row = self.table.rows[number]
        first, last = int(row["first_seq"]), int(row["last_seq"])
        return (((first, last),) if last else ()), ()

    def ref(self, number: int) -> EntryRef:
        """An entry as replicas compare it."""
        row = self.table.rows[number]
        producer = int(row["producer"])
        key = self.table.producers.values[producer][1:] if producer >= 0 else ()
        previous = row["previous"].tobytes()
        return EntryRef(
            EntryId(row["id"].tobytes()),
            self.content_hash(number),
            key,
            self.spans(number)[0],
            b"" if previous == NO_ID else previous,
            int(row["received"]),
        )

    def entries_in_hours(self, shard: int, start: int, end: int) -> list[int]:
        """Present entries of a shard filed under the hours that start..end touches."""
        rows = self.table.rows[: self.table.count]
        first, last = hour_of(start), hour_of(max(end - 1, start))
        low, high = rows["min_ts"] // MICROS_PER_HOUR, rows["max_ts"] // MICROS_PER_HOUR
        hit = (low <= last) & (high >= first) | (high - low >= MAX_ENTRY_HOURS)
        hit &= (rows["shard"] == shard) & ((rows["flags"] & GONE) == 0)
        return np.flatnonzero(hit).tolist()


def _joined(first: np.ndarray, last: np.ndarray) -> list[tuple[int, int]]:
    """The union of spans as disjoint ones, ascending."""
    order = np.argsort(first, kind="stable")
    first, last = first[order], np.maximum.accumulate(last[order])
    breaks = first[1:] > last[:-1] + 1
    starts, ends = first[np.append(True, breaks)], last[np.append(breaks, True)]
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def _spans(values: Sequence[Sequence[int]]) -> Spans:
    return tuple((int(a), int(b)) for a, b in values)


def _without_previous(ref: EntryRef) -> EntryRef:
    return replace(ref, previous=b"")
