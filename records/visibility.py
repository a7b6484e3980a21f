"""Which copy of a row counts, when several entries hold it: a pure function of the set of entries.

* The same entry id twice: either copy serves, they are equal; the one received first is kept.
* Sequences that overlap between entries of one producer epoch (batches cut anew): each row belongs to the
  entry received first that has it, the one of the smallest id among equals; the others hide it.
* An unsequenced entry is hidden if the one it repeats (`previous`: same bytes, dedupe window before) is
  present, not hidden itself, and was received no longer than a window away. So the same bytes sent once
  an hour for ever are not one repeat of a repeat: each window's worth shows at least once.

Equal sets give equal answers whatever the order of arrival, so replicas agree without talking.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from records.block import EntryHeader, Spans
from records.ids import EntryId
from records.intervals import SeqIntervals

#: How long the same bytes are the same request: an agent's blind retry comes within minutes. Part of the
#: format: all nodes must agree on it at all times, so it is no setting.
REPEAT_MICROS = 3_600_000_000


@dataclass(frozen=True, slots=True)
class EntryRef:
    """An entry as replicas compare it. `producer` is () or (tenant, service, producer, epoch)."""

    entry_id: EntryId
    content_hash: bytes
    producer: tuple[str, str, str, int] | tuple[()] = ()
    seqs: Spans = ()
    previous: bytes = b""
    received_at: int = 0

    def to_list(self) -> list[object]:
        """Plain values for the wire."""
        return [
            self.entry_id,
            self.content_hash,
            list(self.producer),
            self.seqs,
            self.previous,
            self.received_at,
        ]

    @classmethod
    def from_list(cls, values: list) -> "EntryRef":
        """The inverse."""
        entry_id, content_hash, producer, seqs, previous, received_at = values
        spans = tuple((a, b) for a, b in seqs)
        return cls(entry_id, content_hash, tuple(producer), spans, previous, received_at)


def entry_ref(entry: EntryHeader) -> EntryRef:
    """The reference of an entry; it does not depend on the block that the entry lies in."""
    producer = (*entry.producer_key, int(entry.producer_epoch)) if entry.sequenced else ()
    return EntryRef(
        entry.entry_id,
        entry.content_hash,
        producer,
        entry.seqs,
        entry.previous,
        entry.received_at,
    )


@dataclass(frozen=True, slots=True)
class Hidden:
    """What is hidden of one entry: all of it, or the rows with these sequences."""

    whole: bool = False
    seqs: Spans = ()


def hidden_parts(entries: Iterable[EntryRef]) -> dict[EntryId, Hidden]:
    """For each entry that is not wholly visible, what is hidden of it. Entry ids must be distinct."""
    listed = list(entries)
    hidden = {name: Hidden(whole=True) for name in _repeats(listed)}
    groups: dict[tuple, list[EntryRef]] = defaultdict(list)
    for entry in listed:
        if entry.producer:
            groups[entry.producer].append(entry)
    for group in groups.values():
        hidden.update(_hidden_overlaps(group))
    return hidden


def repeats(received_at: int, previous_received_at: int, previous_hidden: bool) -> bool:
    """Whether an entry is hidden by the `previous` that is present."""
    return not previous_hidden and abs(received_at - previous_received_at) <= REPEAT_MICROS


def _repeats(listed: list[EntryRef]) -> list[EntryId]:
    """The entries that are hidden by their `previous`, decided along each chain from its oldest."""
    present: dict[bytes, EntryRef] = {entry.entry_id: entry for entry in listed}
    decided: dict[bytes, bool] = {}
    for entry in listed:
        chain = [entry]
        while (before := present.get(chain[-1].previous)) and before.entry_id not in decided:
            if before in chain:  # forged: honest ids cannot form a ring
                break
            chain.append(before)
        for one in reversed(chain):
            before = present.get(one.previous)
            decided[one.entry_id] = before is not None and repeats(
                one.received_at, before.received_at, decided.get(before.entry_id, False)
            )
    return [entry.entry_id for entry in listed if decided[entry.entry_id]]


def _hidden_overlaps(group: list[EntryRef]) -> dict[EntryId, Hidden]:
    seen = SeqIntervals()
    hidden: dict[EntryId, Hidden] = {}
    for entry in sorted(group, key=lambda one: (one.received_at, one.entry_id)):
        overlaps = tuple(part for a, b in entry.seqs for part in seen.overlap(a, b))
        if overlaps:
            rows = sum(b - a + 1 for a, b in entry.seqs)
            whole = sum(b - a + 1 for a, b in overlaps) == rows
            hidden[entry.entry_id] = Hidden(whole, overlaps)
        seen.update(entry.seqs)
    return hidden
