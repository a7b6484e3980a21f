"""The entries of a shard as replicas compare them: columns copied on the event loop, references made of them
on a worker. Those of a full shard (31,000) would hold the loop for a third of a second. Pure.

What is told is as of the copy: numbers of entries may change while a worker is busy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from records.ids import EntryId
from records.visibility import EntryRef
from storage.entry_table import NO_ID, cells_of
from storage.holdings import Extra, Holdings

#: Entries of which references are made at once, on the event loop: 10 ms.
INLINE_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Copied:
    """Rows of the entry table; by position what is kept beside it of COMPLEX ones; names, never removed."""

    rows: np.ndarray
    extras: dict[int, Extra]
    producers: list[tuple]


def copied(holdings: Holdings, numbers: Sequence[int]) -> Copied:
    """The entries with these numbers. On the event loop: 0.2 us each, more where many are COMPLEX."""
    extras = holdings.extras
    kept = {at: extras[n] for at, n in enumerate(numbers) if n in extras} if extras else {}
    rows = holdings.table.rows[np.asarray(numbers, np.int64)]
    return Copied(rows, kept, holdings.table.producers.values)


def references(found: Copied) -> tuple[EntryRef, ...]:
    """What `Holdings.ref` says of each."""
    rows = found.rows
    columns = (rows[name].tolist() for name in ("producer", "first_seq", "last_seq", "received"))
    names = zip(
        cells_of(rows["id"]), cells_of(rows["hash"]), cells_of(rows["previous"]), strict=True
    )
    made = []
    for at, (cells, values) in enumerate(zip(names, zip(*columns, strict=True), strict=True)):
        entry_id, content_hash, previous = cells
        producer, first, last, received = values
        seqs = ((first, last),) if last else ()
        if at in found.extras:
            content_hash, seqs = found.extras[at][:2]
        key = found.producers[producer][1:] if producer >= 0 else ()
        previous = b"" if previous == NO_ID else previous
        made.append(EntryRef(EntryId(entry_id), content_hash, key, seqs, previous, received))
    return tuple(made)
