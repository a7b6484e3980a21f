"""Planted bugs of reads: quorum, comparing owners, merging."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import query.coordinator
import query.scatter
import query.settle
import records.consistency
import records.errors
import records.visibility
import storage.catalog
import storage.engine
import storage.holdings
import storage.judge
import storage.log_format
import storage.merkle
import storage.opening
import storage.putting
import storage.scan_rows
import storage.service
import storage.wal
from chaos.mutants.planting import Place, mutant
from records.columns import united


@mutant("read with R-1", "I4", "I6")
def _() -> Sequence[Place]:
    plant = lambda _self, _level, _owners: 1  # noqa: E731
    return [(records.consistency.QuorumPolicy, "answers_needed", plant)]


@mutant("partial read says complete", "I6", "I4")
def _() -> Sequence[Place]:
    real = query.coordinator.reading_of

    def reading_of(*args: Any) -> Any:
        found = real(*args)
        found.missing = []
        return found

    return [(query.coordinator, "reading_of", reading_of)]


@mutant("digests of owners not compared", "I4", "I8", quick=True)
def _() -> Sequence[Place]:
    return [(query.scatter.Scattered, "differing", lambda _self: [])]


@mutant("digest is blind to which entries", "I4", "I8")
def _() -> Sequence[Place]:
    real = storage.merkle.MerkleTree.digest

    def digest(self: Any, start: int, end: int) -> Any:
        return real(self, start, end)[0], storage.merkle.EMPTY[1]

    return [(storage.merkle.MerkleTree, "digest", digest)]


@mutant("what the data owner lacks is not fetched", "I4")
def _() -> Sequence[Place]:
    async def nothing(_self: Any) -> None:
        return None

    return [(query.settle.Settler, "_supplement", nothing)]


@mutant("no distinct by row id", "I2", quick=True)
def _() -> Sequence[Place]:
    return [
        (storage.holdings.Holdings, "_hide_overlaps", lambda *_: None),
        (records.visibility, "_hidden_overlaps", lambda _group: {}),
    ]


@mutant("answers merged in the order of their coming", "I17", loss=0.2)
def _() -> Sequence[Place]:
    def merge(tables: list[Any], _descending: bool, limit: int) -> Any:
        full = [table for table in tables if table.num_rows]
        if not full:
            return tables[0]
        return united(full).slice(0, limit) if limit else united(full)

    return [(query.coordinator, "merge_rows", merge)]


@mutant("a page begins with the last row of the one before", "I2", quick=True)
def _() -> Sequence[Place]:
    real = query.coordinator.key_at

    def key_at(rows: Any, at: int) -> Any:
        return real(rows, at - 1 if rows.num_rows > 1 else at)

    return [(query.coordinator, "key_at", key_at)]


@mutant("a cursor knows the time of its row alone", "I4", quick=True)
def _() -> Sequence[Place]:
    real = query.coordinator.key_at

    def key_at(rows: Any, at: int) -> Any:
        return replace(real(rows, at), run=b"\xff" * 16, number=(1 << 63) - 1)

    return [(query.coordinator, "key_at", key_at)]


@mutant("rows named by the entry they lie in", "I17", "I1", "I5", loss=0.2)
def _() -> Sequence[Place]:
    real: Any = storage.scan_rows._named

    def named(runs: Any, batch: Any, positions: Any) -> Any:
        parts = []
        for part in batch.parts:
            entries = part.entries.copy()
            entries["producer"] = -1
            parts.append(replace(part, entries=entries))
        return real(runs, SimpleNamespace(parts=parts, starts=batch.starts), positions)

    return [(storage.scan_rows, "_named", named)]
