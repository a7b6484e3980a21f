"""JSON lines: one object a line. Blank lines are no rows; rows count from 1.

The native kernel, if there is one, takes most batches. Else the fast way takes a batch as columns, and the
slow way reads line by line and gives each bad line its reason. Without a kernel small batches go the slow
way at once: the reader's fixed cost is that of some fifty rows.
"""

from typing import Any

from ingestor.limits import Limits
from ingestor.parsers import native
from ingestor.parsers.base import Parsed, RowError
from ingestor.parsers.fast_json import read_lines
from ingestor.parsers.learned import LearnedSchemas
from ingestor.parsers.native import NO_HINTS, Hints
from ingestor.parsers.segments import parse_in_segments
from ingestor.parsers.strict_json import read_row
from ingestor.parsers.strict_lines import Keep, RawLines, parse_slowly

#: Below so many bytes the slow way is faster: about 50 slim rows.
SMALL_BYTES = 8 << 10
#: Below so many bytes the slow way is faster than the kernel and the arrays made of its answer.
KERNEL_BYTES = 512
SAMPLE_ROWS = 48
_FIRST_ROWS = 8
_BOM = b"\xef\xbb\xbf"


def parse_json_lines(
    body: bytes,
    limits: Limits,
    learned: LearnedSchemas,
    key: Any,
    keep: Keep,
    hints: Hints = NO_HINTS,
) -> Parsed:
    """The rows of `body`. `key`: under what their shape is learned (tenant, surface)."""
    body = body.removeprefix(_BOM)
    if len(body) >= KERNEL_BYTES:
        parsed = native.parse(body, limits, hints)
        if parsed is not None:
            return parsed
    if len(body) < SMALL_BYTES:
        return parse_slowly(body, limits, keep)
    key = (key, _first_keys(body, limits))
    if learned.hopeless(key):
        return parse_slowly(body, limits, keep)
    parsed = _fast(body, limits, learned, key)
    if parsed is not None:
        return parsed
    fields = learned.get(key)
    parsed = parse_in_segments(body, fields, limits, keep) if fields else None
    if parsed is not None:
        return parsed
    return parse_slowly(body, limits, keep, lambda rows: learned.teach(key, rows))


def _first_keys(body: bytes, limits: Limits) -> tuple[str, ...]:
    """The keys of the first good row among the first few."""
    begin = 0
    for _ in range(_FIRST_ROWS):
        end = body.find(b"\n", begin)
        try:
            return tuple(read_row(body[begin : end if end >= 0 else len(body)], limits))
        except RowError:
            begin = end + 1
            if end < 0:
                break
    return ()


def _fast(body: bytes, limits: Limits, learned: LearnedSchemas, key: Any) -> Parsed | None:
    """All rows as columns, under the schema known or one learned from a sample; None at a doubt."""
    known = learned.get(key)
    found = read_lines(body, known, limits) if known else None
    if found is None:
        fresh = learned.learn(key, _sample(body, limits))
        found = read_lines(body, fresh, limits) if fresh and fresh != known else None
    return Parsed(*found, RawLines(body)) if found is not None else None


def _sample(body: bytes, limits: Limits) -> list[dict[str, Any]]:
    """Some rows from all over the body; bad ones left out."""
    step = max(1, len(body) // SAMPLE_ROWS)
    rows = []
    for start in range(0, len(body), step):
        begin = 0 if start == 0 else body.find(b"\n", start) + 1
        if start and begin == 0:
            break
        end = body.find(b"\n", begin)
        line = body[begin : end if end >= 0 else len(body)]
        try:
            rows.append(read_row(line, limits))
        except RowError:
            continue
    return rows
