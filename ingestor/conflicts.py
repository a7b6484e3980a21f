"""Rows whose sequence is held with other bytes: taken out of their batch, reported, kept in `_failed`.

It is what a producer looks like that restarted its counter. A cold path: row by row is good enough.
"""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa

from ingestor.batch import Batch, RejectedRow
from ingestor.encode import without_rows
from ingestor.outcomes import EntryTally
from ingestor.shards import FAILED_SERVICE, ranges_within, sequences_of
from records.columns import CORE_TYPES, plain
from records.ids import digest_id

REASON = "this sequence is held with other bytes"


def split_conflicts(
    table: pa.Table, one: EntryTally, batch: Batch
) -> tuple[pa.Table, pa.Table, list[RejectedRow]]:
    """(rows to write again, rows refused, their reports); all are refused if no owner said which."""
    spans = tuple(one.conflicts) if one.conflicts else one.entry.seqs
    kept, refused = without_rows(table, ranges_within(table, spans))
    where = _row_numbers(batch)
    position = dict(zip(sequences_of(batch.table).tolist(), where.tolist(), strict=True))
    reports = [
        RejectedRow(position[seq], "conflict", REASON, seq)
        for seq in sequences_of(refused).tolist()
    ]
    return kept, refused, reports


def _row_numbers(batch: Batch) -> np.ndarray:
    """Places of the table's rows in the request, from 1, if it was in order of its sequences."""
    bad = np.array(sorted(row.row for row in batch.rejected), np.int64)
    every = np.arange(1, batch.table.num_rows + len(bad) + 1)
    return np.setdiff1d(every, bad)[: batch.table.num_rows]


def failed_rows(batch: Batch, rows: pa.Table, received_at: int, index: int) -> Batch:
    """A batch of refused rows alone, as JSON text under the service `_failed`."""
    listed = plain(rows).to_pylist()
    texts = [json.dumps(row, default=str, ensure_ascii=False) for row in listed]
    count = len(texts)
    service = batch.sequence.service if batch.sequence else ""
    table = pa.table(
        {
            "timestamp": pa.array([received_at] * count).cast(CORE_TYPES["timestamp"]),
            "service": pa.array([FAILED_SERVICE] * count).dictionary_encode(),
            "level": pa.array(["error"] * count).dictionary_encode(),
            "message": pa.array(texts, pa.string()),
            "code": pa.array(["conflict"] * count),
            "reason": pa.array([REASON] * count),
            "source_service": pa.array([service] * count),
        }
    )
    content = digest_id(b"conflict", batch.identity.content, str(index).encode())
    identity = replace(batch.identity, content=content)
    return replace(batch, table=table.slice(0, 0), failed=table, identity=identity, sequence=None)
