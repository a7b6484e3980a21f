"""TraceHub's envelope and the numbers of its rows: who numbers them, which are bad, what is skipped.

Rows carry `seq` in all rows or in none. The seq of a permanently bad row becomes a durable skip, so that
`ackTill` passes it; a seq that is present as a good row is never skipped.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from ingestor.limits import Limits
from ingestor.parsers.base import BadRow, Parsed, quoted
from ingestor.validate import check_identifier
from records.block import Spans
from records.errors import InvalidRequest, TooLarge
from records.intervals import SeqIntervals

pc: Any = pyarrow.compute
DEFAULT_PRODUCER = "default"
MAX_SEQ = 1 << 62
SKIPS_MAX = 10_000


@dataclass(slots=True)
class Numbered:
    """The envelope, checked. `seqs[i]` numbers row i (0 where bad); None when no row is numbered."""

    service: str
    producer: str
    epoch: int
    skips: Spans
    seqs: np.ndarray | None = None
    bad: dict[int, tuple[str, str]] = field(default_factory=dict)


def read_envelope(envelope: dict[str, Any], parsed: Parsed, limits: Limits) -> Numbered:
    """Takes the column `seq` out of `parsed` and checks everything about it.

    Raises:
        InvalidRequest: `reason` is bad_service, bad_producer, bad_epoch, bad_skip or mixed_seq.
        TooLarge: more rows than a batch may have.
    """
    if parsed.total > limits.batch_rows:
        raise TooLarge(f"{parsed.total} rows in one batch; at most {limits.batch_rows}")
    made = Numbered(
        check_identifier(envelope.get("service"), "service"),
        check_identifier(envelope.get("producer", DEFAULT_PRODUCER), "producer"),
        _epoch(envelope.get("epoch", 1)),
        read_skips(envelope.get("skip")),
    )
    column = parsed.columns.pop("seq", None)
    if column is None or column.null_count == parsed.rows:
        if made.skips and parsed.rows:
            raise _invalid("mixed_seq", "skip is for numbered rows, and these have no seq")
        return made
    if column.null_count:
        row = int(np.flatnonzero(np.asarray(column.is_null()))[0])
        number = int(parsed.row_numbers()[row])
        raise _invalid("mixed_seq", f"row {number} has no seq and others have one")
    made.seqs, made.bad = _sequences(column)
    return made


def _epoch(value: Any) -> int:
    if type(value) is int and 1 <= value <= MAX_SEQ:
        return value
    raise _invalid("bad_epoch", f"epoch: a whole number from 1 is expected, not {quoted(value)}")


def read_skips(value: Any) -> Spans:
    """Closed spans of sequences declared lost, merged.

    Raises:
        InvalidRequest: `reason` is bad_skip.
    """
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > SKIPS_MAX:
        raise _invalid(
            "bad_skip", f"skip: at most {SKIPS_MAX} of {{from, to, reason}} are expected"
        )
    spans = SeqIntervals()
    for item in value:
        first, last = (item.get("from"), item.get("to")) if isinstance(item, dict) else (None, None)
        if type(first) is not int or type(last) is not int or not 1 <= first <= last <= MAX_SEQ:
            raise _invalid(
                "bad_skip", f"skip: from <= to, both from 1, are expected, not {quoted(item)}"
            )
        spans.add(first, last)
    return tuple(spans)


def _sequences(column: pa.Array) -> tuple[np.ndarray, dict[int, tuple[str, str]]]:
    if pa.types.is_integer(column.type):
        values = np.asarray(column).astype(np.int64)
        wrong = (values < 1) | (values > MAX_SEQ)
        if not wrong.any():
            return values, {}
        shown: list[Any] = values.tolist()
    else:
        shown = column.to_pylist()
        exact = [_whole(value) for value in shown]
        values = np.array(exact, np.int64)
        wrong = values == 0
    bad = {
        int(row): ("bad_seq", f"seq: a whole number from 1 is expected, not {quoted(shown[row])}")
        for row in np.flatnonzero(wrong)
    }
    values = np.where(wrong, 0, values)
    return values, bad


def _whole(value: Any) -> int:
    """The sequence that a value in a column of mixed types means; 0 if none."""
    digits = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20
    if not digits and not (isinstance(value, float) and value.is_integer()):
        return 0
    number = int(value)
    return number if 1 <= number <= MAX_SEQ else 0


def ordered(table: pa.Table, numbers: np.ndarray) -> tuple[pa.Table, list[tuple[int, int]]]:
    """The rows ascending strictly by `seq`, and of the others those that differ from the row kept.

    The row that came first is kept; an equal one is dropped in silence. `numbers`: each row's number in
    the request; the second result is (number, seq) of the rows that reuse a seq for something else.
    """
    seqs = np.asarray(table.column("seq").combine_chunks()) if table.num_rows else np.zeros(0)
    if (np.diff(seqs) > 0).all():
        return table, []
    order = np.argsort(seqs, kind="stable")
    ranked = seqs[order]
    again = np.concatenate(([False], ranked[1:] == ranked[:-1]))
    others: list[tuple[int, int]] = []
    kept = 0
    for place in range(1, len(order)) if again.any() else ():
        if not again[place]:
            kept = place
        elif not _equal_rows(table, int(order[kept]), int(order[place])):
            others.append((int(numbers[order[place]]), int(ranked[place])))
    return table.take(pa.array(order[~again])), others


def _equal_rows(table: pa.Table, one: int, other: int) -> bool:
    return table.slice(one, 1).equals(table.slice(other, 1)) or (
        table.slice(one, 1).to_pylist() == table.slice(other, 1).to_pylist()
    )


def skips_with(skips: Spans, bad: list[BadRow], table: pa.Table) -> Spans:
    """`skips` and the seqs of bad rows, less what is present as a row of `table`."""
    wanted = SeqIntervals(skips)
    for row in bad:
        if row.seq is not None and 1 <= row.seq <= MAX_SEQ:
            wanted.add(row.seq, row.seq)
    if not wanted.spans():
        return ()
    present = SeqIntervals(_spans(np.asarray(table["seq"].combine_chunks())))
    return tuple(gap for first, last in wanted for gap in present.gaps(first, last))


def _spans(seqs: np.ndarray) -> list[tuple[int, int]]:
    if seqs.size == 0:
        return []
    breaks = np.flatnonzero(np.diff(seqs) != 1)
    firsts = seqs[np.concatenate(([0], breaks + 1))]
    lasts = seqs[np.concatenate((breaks, [seqs.size - 1]))]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))


def _invalid(reason: str, text: str) -> InvalidRequest:
    return InvalidRequest(text, reason=reason)
