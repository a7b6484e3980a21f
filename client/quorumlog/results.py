"""What a query gives back: rows with the honesty of the server about what is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from .errors import MissingExtra, ServerFailed


class _Rows:
    """Rows that can be walked, counted and turned into a table."""

    __slots__ = ()
    rows: list[dict[str, Any]]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def to_arrow(self) -> Any:
        """A `pyarrow.Table` of all columns; one of several types becomes text, times stay text.

        Raises:
            MissingExtra: pyarrow is not installed (`pip install quorumlog[arrow]`).
        """
        return table_of(self.rows)


@dataclass(frozen=True, slots=True)
class QueryResult(_Rows):
    """One page. `complete` False: `missing` names the shards and hours that nobody could answer for.

    `next_cursor` is None on the last page.
    """

    rows: list[dict[str, Any]]
    next_cursor: str | None = None
    complete: bool = True
    missing: list[Any] = field(default_factory=list)
    stats: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """The result in an answer of `/query`.

        Raises:
            ServerFailed: the answer is not of that shape.
        """
        rows = raw.get("rows")
        if not isinstance(rows, list) or not isinstance(raw.get("complete", True), bool):
            raise ServerFailed("answer of /query has no rows, or no boolean `complete`")
        return cls(
            rows=rows,
            next_cursor=raw.get("next_cursor") or None,
            complete=raw.get("complete", True),
            missing=list(raw.get("missing") or []),
            stats=dict(raw.get("stats") or {}),
        )


@dataclass(frozen=True, slots=True)
class SqlResult(_Rows):
    """The whole result of a SELECT. `columns`: name and SQL type, in order; `notes`: worth knowing.

    `complete` False: `missing` names the shards and hours that nobody could answer for.
    """

    rows: list[dict[str, Any]]
    columns: list[tuple[str, str]]
    complete: bool = True
    missing: list[Any] = field(default_factory=list)
    stats: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """The result in an answer of `/sql`.

        Raises:
            ServerFailed: the answer is not of that shape.
        """
        rows, columns = raw.get("rows"), raw.get("columns")
        if not isinstance(rows, list) or not isinstance(columns, list):
            raise ServerFailed("answer of /sql has no rows, or no columns")
        return cls(
            rows=rows,
            columns=[(str(one["name"]), str(one["type"])) for one in columns],
            complete=bool(raw.get("complete", True)),
            missing=list(raw.get("missing") or []),
            stats=dict(raw.get("stats") or {}),
            notes=list(raw.get("notes") or []),
        )


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What became of lines: `rejected` lists at most 100 of `rejected_count` (rows from 1)."""

    batch_id: str
    accepted: int
    duplicates: int
    rejected_count: int
    rejected: list[dict[str, Any]]
    durable: str

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """The result in an answer of `/ingest` to lines."""
        return cls(
            batch_id=str(raw.get("batchId", "")),
            accepted=int(raw.get("accepted", 0)),
            duplicates=int(raw.get("duplicates", 0)),
            rejected_count=int(raw.get("rejectedCount", 0)),
            rejected=list(raw.get("rejected") or []),
            durable=str(raw.get("durable", "")),
        )


def import_pyarrow() -> Any:
    """pyarrow, imported when first needed.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        raise MissingExtra("pyarrow is not installed: pip install 'quorumlog[arrow]'") from error
    return pyarrow


def table_of(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as a `pyarrow.Table`: the union of their columns, in order of appearance."""
    pa = import_pyarrow()
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: _column(pa, [row.get(name) for row in rows]) for name in names})


def _column(pa: Any, values: list[Any]) -> Any:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([_text(value) for value in values], pa.string())


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
