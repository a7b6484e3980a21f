"""Judges one block, entry by entry, against what is held, what is being written, and itself. Pure.

The rules and their order stand at the top of storage.engine; this is their text. Cost: a few look-ups an
entry; only entries that overlap others cost more.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from records.block import BlockHeader, EntryHeader, Spans
from records.intervals import SeqIntervals
from records.messages import EntryStatus
from storage.holdings import Holdings
from storage.producers import GroupKey, group_key

#: What comparing showed: whether all rows are equal, and the sequences that are not.
Proof = tuple[bool, Spans]
#: (index of the entry in the block, held entry: its number, or -1 - index of an earlier one in the block)
Pair = tuple[int, int]


@dataclass(slots=True)
class Judgement:
    """What one entry came to; `waits` and `pairs` are what must be known first.

    `expired`: not stored, as it is below the watermark.
    """

    status: EntryStatus
    duplicates: int = 0
    conflicts: Spans = ()
    expired: bool = False
    waits: set[int] = field(default_factory=set)
    pairs: list[tuple[Pair, Spans | None]] = field(default_factory=list)


class Writing:
    """The accepted entries of puts whose records are on their way to the disk."""

    def __init__(self) -> None:
        self._ids: dict[bytes, int] = {}
        self._groups: dict[GroupKey, list[tuple[int, Spans]]] = {}

    def add(self, put: int, entries: Iterable[EntryHeader]) -> None:
        """They are being written by `put`."""
        for entry in entries:
            self._ids[entry.entry_id] = put
            if entry.seqs:
                self._groups.setdefault(group_key(entry), []).append((put, entry.seqs))

    def discard(self, put: int, entries: Iterable[EntryHeader]) -> None:
        """They are no longer being written."""
        for entry in entries:
            self._ids.pop(entry.entry_id, None)
            key = group_key(entry)
            if key in self._groups:
                left = [pair for pair in self._groups.pop(key) if pair[0] != put]
                if left:
                    self._groups[key] = left

    def with_id(self, entry_id: bytes) -> int | None:
        """The put that writes this entry."""
        return self._ids.get(entry_id)

    def overlapping(self, entry: EntryHeader) -> set[int]:
        """The puts that write rows with some of the entry's sequences."""
        others = self._groups.get(group_key(entry), ())
        return {put for put, spans in others if common(entry.seqs, spans)}


class Judge:
    """Judges the entries of one block in order; remembers which of them would be stored."""

    def __init__(
        self,
        holdings: Holdings,
        fences: Mapping[int, tuple[int, str]],
        writing: Writing,
        header: BlockHeader,
        repair: bool,
        proofs: Mapping[Pair, Proof],
    ) -> None:
        self._holdings, self._fences, self._writing = holdings, fences, writing
        self._header, self._repair, self._proofs = header, repair, proofs
        self._stored_ids: dict[bytes, int] = {}
        self._stored_groups: dict[GroupKey, tuple[SeqIntervals, list[int]]] = {}

    def judge(self, index: int) -> Judgement:
        """The entry's judgement; to be called for each index, ascending."""
        entry = self._header.entries[index]
        if fenced := self._fenced(entry):
            return Judgement(fenced)
        if self._expired(entry):
            return Judgement(EntryStatus.DUPLICATE, entry.row_count, expired=True)
        put = self._writing.with_id(entry.entry_id)
        if put is not None:
            return Judgement(EntryStatus.DUPLICATE, waits={put})
        same = self._same_id(entry)
        if same is not None:
            return self._judge_known(index, *same)
        result = self._judge_overlaps(index)
        if result.status is EntryStatus.STORED:
            self._remember(index)
        return result

    def _fenced(self, entry: EntryHeader) -> EntryStatus | None:
        if not entry.sequenced or self._repair:
            return None
        if entry.shard_epoch < self._fences.get(entry.shard, (0, ""))[0]:
            return EntryStatus.STALE
        newest = self._holdings.producers.newest_epoch(entry.shard, entry.producer_key)
        return EntryStatus.FENCED if entry.producer_epoch < newest else None

    def _expired(self, entry: EntryHeader) -> bool:
        """Whether the entry is below the watermark, and not stored for it.

        A producer's rows are stored all the same, or its sequences would never be acknowledged: they are
        hidden, and dropped before long. What others bring as a repair was, or would have been, dropped.
        """
        if entry.sequenced and not self._repair:
            return False
        return self._holdings.retention.expired(
            entry.tenant, entry.service if entry.sequenced else "", entry.max_ts
        )

    def _same_id(self, entry: EntryHeader) -> tuple[int, bytes] | None:
        """(held number, its hash) of the entry with the same id, here or earlier in the block."""
        number = self._holdings.table.find(entry.entry_id)
        if number is not None:
            return number, self._holdings.content_hash(number)
        other = self._stored_ids.get(entry.entry_id)
        return None if other is None else (-1 - other, self._header.entries[other].content_hash)

    def _judge_known(self, index: int, number: int, content_hash: bytes) -> Judgement:
        entry = self._header.entries[index]
        duplicate = Judgement(EntryStatus.DUPLICATE, entry.row_count)
        if content_hash == entry.content_hash:
            return duplicate
        proof = self._proofs.get((index, number))
        if proof is None:
            return Judgement(EntryStatus.CONFLICT, pairs=[((index, number), None)])
        return duplicate if proof[0] else Judgement(EntryStatus.CONFLICT, 0, proof[1])

    def _judge_overlaps(self, index: int) -> Judgement:
        entry = self._header.entries[index]
        result = Judgement(EntryStatus.STORED)
        if not entry.seqs:
            return result
        result.waits |= self._writing.overlapping(entry)
        overlapped: set[tuple[int, int]] = set()
        conflicts: set[tuple[int, int]] = set()
        for held, spans in self._overlapping(entry):
            overlapped.update(spans)
            proof = self._proofs.get((index, held))
            if proof is None:
                result.pairs.append(((index, held), spans))
            else:
                conflicts.update(proof[1])
        result.conflicts = merged(conflicts)
        result.duplicates = length(overlapped) - length(conflicts)
        if result.conflicts and not self._repair:
            result.status = EntryStatus.CONFLICT
        return result

    def _overlapping(self, entry: EntryHeader) -> list[tuple[int, Spans]]:
        """(held, sequences in common) for each stored entry that overlaps this one."""
        found: list[tuple[int, Spans]] = []
        if self._holdings.producers.overlap(entry):
            producer = self._holdings.table.producers.find(group_key(entry))
            first, last = entry.seqs[0][0], entry.seqs[-1][1]
            assert producer is not None
            for number in self._holdings.table.producer_entries(producer, first, last):
                found.append((number, common(entry.seqs, self._holdings.spans(number)[0])))
        group = self._stored_groups.get(group_key(entry))
        if group and any(group[0].overlap(a, b) for a, b in entry.seqs):
            for other in group[1]:
                found.append((-1 - other, common(entry.seqs, self._header.entries[other].seqs)))
        return [(held, spans) for held, spans in found if spans]

    def _remember(self, index: int) -> None:
        entry = self._header.entries[index]
        self._stored_ids[entry.entry_id] = index
        if entry.seqs:
            new = (SeqIntervals(), [])
            spans, indexes = self._stored_groups.setdefault(group_key(entry), new)
            spans.update(entry.seqs)
            indexes.append(index)


def length(spans: Iterable[tuple[int, int]]) -> int:
    """How many sequences the union holds."""
    return sum(b - a + 1 for a, b in merged(spans))


def common(left: Spans, right: Spans) -> Spans:
    """The sequences in both; each side ascends."""
    found = []
    for a, b in left:
        for c, d in right:
            if max(a, c) <= min(b, d):
                found.append((max(a, c), min(b, d)))
    return tuple(found)


def merged(spans: Iterable[tuple[int, int]]) -> Spans:
    """The union as disjoint, ascending spans."""
    result: list[tuple[int, int]] = []
    for a, b in sorted(spans):
        if result and a <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(b, result[-1][1]))
        else:
            result.append((a, b))
    return tuple(result)
