"""From one batch to pieces: its rows by shard, and what the blocks will say of each entry.

Rows are sorted by (owners, shard), stably and only if there is more than one shard, so that the rows
of each entry are contiguous and keep their order of arrival, and all entries with the same owners lie
side by side. Everything is a function of the batch, its way (`ingestor.ways`), the ring and the receive
time: the same request gives the same entry ids through any node.

An unsequenced entry of more than MAX_ENTRY_ROWS rows is cut into parts, each an entry of its own, so
that no block grows without bound. The cut is fixed for ever: a resend must meet the same ids.
"""

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from ingestor.batch import Batch, Identity, Sequence
from ingestor.content_hash import content_hash
from records.block import EntryHeader, Spans
from records.columns import CORE_TYPES
from records.ids import (
    EntryId,
    ProducerEpoch,
    ShardEpoch,
    ShardId,
    digest_entry_id,
    digest_id,
    sequenced_entry_id,
)

#: Rows of one unsequenced entry. Part of what names an entry: never change it.
MAX_ENTRY_ROWS = 65_536
#: Where the raw bytes of rows that cannot be kept as rows go.
FAILED_SERVICE = "_failed"


class Placement(Protocol):
    """What routing needs of a ClusterView."""

    @property
    def ring_epoch(self) -> int: ...

    def write_groups(self, shard: int) -> tuple[tuple[str, ...], ...]: ...

    def shard_of(self, tenant: str, service: str, producer: str, epoch: int) -> int: ...

    def shards_of_services(self, tenant: str, services: SequenceOf[str]) -> list[int]: ...


#: Owner sets, each sorted, of which each must acknowledge: one, or two while a shard moves.
Groups = tuple[tuple[str, ...], ...]


def groups_of(view: Placement, shard: int) -> Groups:
    """The owner sets of a shard; which owner is first does not matter to a write."""
    return tuple(sorted(tuple(sorted(group)) for group in view.write_groups(shard)))


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of one request for the same owner sets, in entry order; never empty of entries.

    `entries` count their `row_start` from the first row of the first table.
    """

    groups: Groups
    ring_epoch: int
    tables: tuple[pa.Table, ...]
    entries: tuple[EntryHeader, ...]
    nbytes: int

    @property
    def owners(self) -> tuple[str, ...]:
        """Everyone it is sent to, sorted."""
        if len(self.groups) == 1:
            return self.groups[0]
        return tuple(sorted({owner for group in self.groups for owner in group}))

    @property
    def rows(self) -> int:
        """Rows in all entries."""
        return sum(table.num_rows for table in self.tables)


def codes_and_names(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """(code per row, names) of a dictionary column without nulls; names may hold unused ones."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    if column.num_chunks != 1:
        combined: Any = column.unify_dictionaries().combine_chunks()
        column = combined if isinstance(combined, pa.ChunkedArray) else pa.chunked_array([combined])
    array: Any = column.chunk(0) if column.num_chunks else pa.array([], column.type)
    return array.indices.to_numpy(zero_copy_only=False), array.dictionary.to_pylist()


def times_of(table: pa.Table) -> np.ndarray:
    """The timestamps of the rows, int64 microseconds."""
    return _ints(table["timestamp"])


def _ints(column: pa.ChunkedArray) -> np.ndarray:
    """64-bit values without nulls; without a copy, and without the cost of a cast, if in one chunk."""
    if column.num_chunks == 1 and column.type in (pa.int64(), CORE_TYPES["timestamp"]):
        return column.chunk(0).view(pa.int64()).to_numpy()
    return column.cast(pa.int64()).to_numpy()


def unsequenced_pieces(
    batch: Batch,
    view: Placement,
    received_at: int,
    window_micros: int,
    max_rows: int,
    way: Mapping[str, int] | None = None,
) -> list[Piece]:
    """The batch's rows, and its `failed` rows, cut into pieces of at most about `max_rows` rows.

    `way`: the shards of services whose rows do not go home; part of the entries' names, as another way
    puts other rows together.
    """
    stamp = _Stamp(batch.identity, batch.tenant, received_at, window_micros)
    pieces: list[Piece] = []
    if batch.table.num_rows and batch.sequence is None:
        named = replace(stamp, identity=_named(batch.identity, way or {}))
        pieces += _cut(batch.table, view, named, max_rows, way or {})
    if batch.failed is not None and batch.failed.num_rows:
        content = digest_id(b"failed", batch.identity.content)
        identity = replace(batch.identity, content=content)
        failed = replace(stamp, identity=identity, service=FAILED_SERVICE)
        pieces += _cut(batch.failed, view, failed, max_rows, {})
    return merged(pieces, max_rows)


def _named(identity: Identity, way: Mapping[str, int]) -> Identity:
    """The identity of a request that goes `way`; that of one whose rows all go home is as it came."""
    if not way:
        return identity
    marks = [mark for name in sorted(way) for mark in (name.encode(), str(way[name]).encode())]
    return replace(identity, content=digest_id(identity.content, b"split", *marks))


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What the headers of one request's unsequenced entries have in common."""

    identity: Identity
    tenant: str
    received_at: int
    window_micros: int
    service: str = ""

    def header(
        self, span: "_Span", first: int, low: int, high: int, table: pa.Table
    ) -> EntryHeader:
        """The header of the rows of `span`, in a piece that begins at row `first` of `table`."""
        one, shard = self.identity, span.shard
        content = one.content
        if span.part:
            content = digest_id(content, b"part", str(span.part).encode())
        previous = b""
        if one.ages:
            window = self.received_at // self.window_micros
            previous = digest_entry_id(shard, one.scope, content, window - 1)
            same = digest_id(content, str(shard).encode())
        else:
            # A key chosen by the client does not name the bytes, so the rows themselves do.
            window = 0
            same = content_hash(table.slice(span.start, span.rows), self.received_at)
        return EntryHeader(
            entry_id=digest_entry_id(shard, one.scope, content, window),
            content_hash=same,
            shard=ShardId(shard),
            tenant=self.tenant,
            row_start=span.start - first,
            row_count=span.rows,
            min_ts=low,
            max_ts=high,
            received_at=self.received_at,
            service=self.service,
            previous=previous,
        )


class _Span(NamedTuple):
    """Where the rows of one entry lie in the sorted table."""

    groups: Groups
    shard: int
    part: int
    start: int
    rows: int


def _cut(
    table: pa.Table, view: Placement, stamp: _Stamp, max_rows: int, way: Mapping[str, int]
) -> list[Piece]:
    codes, names = codes_and_names(table["service"])
    used = np.flatnonzero(np.bincount(codes, minlength=len(names)))
    shard_of_code = np.zeros(len(names), np.int64)
    services = [names[code] for code in used]
    homes = view.shards_of_services(stamp.tenant, services)
    if way:
        homes = [way.get(name, home) for name, home in zip(services, homes, strict=True)]
    shard_of_code[used] = homes
    groups = {int(shard): groups_of(view, int(shard)) for shard in np.unique(shard_of_code[used])}
    shards = sorted(groups, key=lambda shard: (groups[shard], shard))
    if len(shards) == 1:
        counts = np.array([table.num_rows])
    else:
        table, counts = _sorted_by_shard(table, codes, shard_of_code, shards)
    spans = _entry_spans(shards, groups, counts)
    starts = np.array([span.start for span in spans])
    times = times_of(table)
    lows = np.minimum.reduceat(times, starts).tolist()
    highs = np.maximum.reduceat(times, starts).tolist()
    per_row = table.nbytes / max(1, table.num_rows)
    pieces: list[Piece] = []
    for begin, end in _grouped(spans, max_rows):
        first = spans[begin].start
        rows = sum(span.rows for span in spans[begin:end])
        headers = [
            stamp.header(spans[at], first, lows[at], highs[at], table) for at in range(begin, end)
        ]
        part = table if rows == table.num_rows else table.slice(first, rows)
        nbytes = int(per_row * rows)
        pieces.append(Piece(spans[begin].groups, view.ring_epoch, (part,), tuple(headers), nbytes))
    return pieces


def _grouped(spans: list[_Span], max_rows: int) -> Iterator[tuple[int, int]]:
    """Ranges of neighbouring spans with the same owner sets and at most `max_rows` rows."""
    begin = rows = 0
    for at, span in enumerate(spans):
        if at > begin and (span.groups != spans[begin].groups or rows + span.rows > max_rows):
            yield begin, at
            begin, rows = at, 0
        rows += span.rows
    yield begin, len(spans)


def _sorted_by_shard(
    table: pa.Table, codes: np.ndarray, shard_of_code: np.ndarray, shards: list[int]
) -> tuple[pa.Table, np.ndarray]:
    rank_of_shard = {shard: rank for rank, shard in enumerate(shards)}
    kind = np.uint8 if len(shards) <= 256 else np.uint16
    ranks = np.array([rank_of_shard.get(int(shard), 0) for shard in shard_of_code], kind)[codes]
    order = np.argsort(ranks, kind="stable")
    return table.take(pa.array(order)), np.bincount(ranks, minlength=len(shards))


def _entry_spans(shards: list[int], groups: dict[int, Groups], counts: np.ndarray) -> list[_Span]:
    spans: list[_Span] = []
    at = 0
    for shard, count in zip(shards, counts.tolist(), strict=True):
        for part, begin in enumerate(range(0, count, MAX_ENTRY_ROWS)):
            rows = min(MAX_ENTRY_ROWS, count - begin)
            spans.append(_Span(groups[shard], shard, part, at + begin, rows))
        at += count
    return spans


def merged(pieces: list[Piece], max_rows: int) -> list[Piece]:
    """Pieces of the same owners side by side, so that one request asks for as few blocks as it can."""
    merged: list[Piece] = []
    for piece in pieces:
        for index, other in enumerate(merged):
            if other.groups == piece.groups and other.rows + piece.rows <= max_rows:
                merged[index] = join_pieces([other, piece])
                break
        else:
            merged.append(piece)
    return merged


_ROW_START = list(EntryHeader.__dataclass_fields__).index("row_start")


def _moved(entry: EntryHeader, by: int) -> EntryHeader:
    """The entry `by` rows further on; a third of the cost of dataclasses.replace."""
    values = entry.to_list()
    values[_ROW_START] += by
    return EntryHeader(*values)


def join_pieces(pieces: SequenceOf[Piece]) -> Piece:
    """One piece of several for the same owners; tables are kept as they are."""
    entries: list[EntryHeader] = []
    at = 0
    for piece in pieces:
        entries += [_moved(entry, at) for entry in piece.entries] if at else piece.entries
        at += piece.rows
    tables = tuple(table for piece in pieces for table in piece.tables)
    nbytes = sum(piece.nbytes for piece in pieces)
    return Piece(pieces[0].groups, pieces[0].ring_epoch, tables, tuple(entries), nbytes)


def spans_of(seqs: np.ndarray) -> Spans:
    """Closed spans of strictly ascending sequences."""
    if len(seqs) == 0:
        return ()
    breaks = np.flatnonzero(np.diff(seqs) != 1)
    firsts = seqs[np.concatenate(([0], breaks + 1))]
    lasts = seqs[np.concatenate((breaks, [len(seqs) - 1]))]
    return tuple(zip(firsts.tolist(), lasts.tolist(), strict=True))


def sequences_of(table: pa.Table) -> np.ndarray:
    """The column `seq`; empty for a table without rows."""
    if table.num_rows == 0:
        return np.array([], np.int64)
    return _ints(table["seq"])


def ranges_within(table: pa.Table, spans: Spans) -> list[tuple[int, int]]:
    """Half-open ranges of rows whose sequences lie in `spans`, where rows ascend by sequence."""
    seqs = sequences_of(table)
    starts = np.searchsorted(seqs, [first for first, _ in spans])
    ends = np.searchsorted(seqs, [last for _, last in spans], side="right")
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def rows_within(table: pa.Table, spans: Spans) -> pa.Table:
    """These rows, of which there are some, without a copy; `spans` ascend."""
    return pa.concat_tables(table.slice(a, b - a) for a, b in ranges_within(table, spans))


def sequenced_piece(
    tenant: str,
    sequence: Sequence,
    table: pa.Table,
    view: Placement,
    shard_epoch: int,
    received_at: int,
) -> Piece:
    """The one entry of a sequenced batch; its rows ascend strictly by seq, or it has skips alone.

    An entry without rows has times of 0: a function of its name, as replicas file it by them.
    """
    shard = view.shard_of(tenant, sequence.service, sequence.producer, sequence.epoch)
    seqs = sequences_of(table)
    spans = spans_of(seqs)
    # (0, 0) is no span of sequences: it parts the rows from the skips, which are named as well.
    named = (*spans, (0, 0), *sequence.skips) if sequence.skips else spans
    times = times_of(table) if table.num_rows else np.zeros(1, np.int64)
    header = EntryHeader(
        entry_id=_sequenced_id(shard, tenant, sequence, named),
        content_hash=content_hash(table, received_at),
        shard=ShardId(shard),
        tenant=tenant,
        row_start=0,
        row_count=table.num_rows,
        min_ts=int(times.min()),
        max_ts=int(times.max()),
        received_at=received_at,
        service=sequence.service,
        producer=sequence.producer,
        producer_epoch=ProducerEpoch(sequence.epoch),
        shard_epoch=ShardEpoch(shard_epoch),
        seqs=spans,
        skips=sequence.skips,
    )
    return Piece(groups_of(view, shard), view.ring_epoch, (table,), (header,), table.nbytes)


def _sequenced_id(shard: int, tenant: str, sequence: Sequence, named: Spans) -> EntryId:
    return sequenced_entry_id(
        shard, tenant, sequence.service, sequence.producer, sequence.epoch, named
    )
