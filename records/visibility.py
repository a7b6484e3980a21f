"""Which copy of a row counts, when several entries hold it: a pure function of the set of entries.

* The same entry id twice: either copy serves, they are equal; the one in the smallest block id is kept.
* Sequences that overlap between entries of one producer epoch: each row belongs to the entry in the
  smallest block id that has it; the others hide it.
* An unsequenced entry whose `previous` id (same bytes, dedupe window before) is present is hidden.

Equal sets give equal answers whatever the order of arrival, so replicas agree without talking.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from records.block import EntryHeader, Spans
from records.ids import BlockId, EntryId
from records.intervals import SeqIntervals


@dataclass(frozen=True, slots=True)
class EntryRef:
    """An entry as replicas compare it. `producer` is () or (tenant, service, producer, epoch)."""

    entry_id: EntryId
    content_hash: bytes
    block_id: BlockId
    producer: tuple[str, str, str, int] | tuple[()] = ()
    seqs: Spans = ()
    previous: bytes = b""

    def to_list(self) -> list[object]:
        """Plain values for the wire."""
        return [
            self.entry_id,
            self.content_hash,
            self.block_id,
            list(self.producer),
            self.seqs,
            self.previous,
        ]

    @classmethod
    def from_list(cls, values: list) -> "EntryRef":
        """The inverse."""
        entry_id, content_hash, block_id, producer, seqs, previous = values
        spans = tuple((a, b) for a, b in seqs)
        return cls(entry_id, content_hash, block_id, tuple(producer), spans, previous)


def entry_ref(entry: EntryHeader, block_id: BlockId) -> EntryRef:
    """The reference of an entry in a block."""
    producer = (*entry.producer_key, int(entry.producer_epoch)) if entry.sequenced else ()
    return EntryRef(
        entry.entry_id, entry.content_hash, block_id, producer, entry.seqs, entry.previous
    )


@dataclass(frozen=True, slots=True)
class Hidden:
    """What is hidden of one entry: all of it, or the rows with these sequences."""

    whole: bool = False
    seqs: Spans = ()


def hidden_parts(entries: Iterable[EntryRef]) -> dict[EntryId, Hidden]:
    """For each entry that is not wholly visible, what is hidden of it. Entry ids must be distinct."""
    listed = list(entries)
    present = {entry.entry_id for entry in listed}
    hidden = {
        e.entry_id: Hidden(whole=True) for e in listed if e.previous and e.previous in present
    }
    groups: dict[tuple, list[EntryRef]] = defaultdict(list)
    for entry in listed:
        if entry.producer:
            groups[entry.producer].append(entry)
    for group in groups.values():
        hidden.update(_hidden_overlaps(group))
    return hidden


def _hidden_overlaps(group: list[EntryRef]) -> dict[EntryId, Hidden]:
    seen = SeqIntervals()
    hidden: dict[EntryId, Hidden] = {}
    for entry in sorted(group, key=lambda one: (one.block_id, one.entry_id)):
        overlaps = tuple(part for a, b in entry.seqs for part in seen.overlap(a, b))
        if overlaps:
            rows = sum(b - a + 1 for a, b in entry.seqs)
            whole = sum(b - a + 1 for a, b in overlaps) == rows
            hidden[entry.entry_id] = Hidden(whole, overlaps)
        seen.update(entry.seqs)
    return hidden
