"""Planted bugs of the log, its files, and what is read back from them."""

from collections.abc import Sequence
from typing import Any

import storage.catalog
import storage.engine
import storage.holdings
import storage.judge
import storage.log_format
import storage.merkle
import storage.opening
import storage.putting
import storage.service
import storage.wal
from chaos.mutants.planting import Place, mutant


@mutant("ack before fdatasync", "I9", "I1", "I15", quick=True)
def _() -> Sequence[Place]:
    def sync(self: Any) -> None:
        self.durable = self.end

    return [(storage.wal._LogFile, "sync", sync)]


@mutant("failed fsync retried", "I9", "I15", "I1", quick=True)
def _() -> Sequence[Place]:
    def sync(self: Any) -> None:
        try:
            self.hooks.sync(self.fd)
        except OSError:
            self.hooks.sync(self.fd)
        self.durable = self.end

    return [(storage.wal._LogFile, "sync", sync)]


@mutant("new log file without fsync of its directory", "I9", "I15", "I1", quick=True)
def _() -> Sequence[Place]:
    return [(storage.wal, "sync_directory", lambda _path: None)]


@mutant("log file cut before its durable end", "I9", "I15", "I1", quick=True)
def _() -> Sequence[Place]:
    real = storage.wal._LogFile.close

    def close(self: Any) -> None:
        self.durable = self.durable // 2
        real(self)

    return [(storage.wal._LogFile, "close", close)]


@mutant("failed write filed as stored", "I9", "I15", faults=("enospc", "enospc"))
def _() -> Sequence[Place]:
    real = storage.putting.Puts._written

    def written(self: Any, put: int, block: Any, verdict: Any, places: Any) -> None:
        if places is None and verdict.accepted:
            end = self._checkpointer.position
            places = [storage.wal.Written(end.file, end.offset, end.offset)]
        real(self, put, block, verdict, places)

    return [(storage.putting.Puts, "_written", written)]


@mutant(
    "replay takes torn blocks for whole ones", "I9", "I15", "I1", "I4", "I8",
    faults=("cut in write", "cut in sync") * 4,
)  # fmt: skip
def _() -> Sequence[Place]:
    return [(storage.log_format, "check_block", lambda _block: None)]


@mutant("block hash not checked on receive", "I15", "I9", "I3", "I4", "I8", "I1", corrupt=0.1)
def _() -> Sequence[Place]:
    return [(storage.putting, "check_block", lambda _block: None)]


@mutant("log not replayed behind the catalog", "I15", "I1", "I4", quick=True)
def _() -> Sequence[Place]:
    return [(storage.opening.Opened, "_replay_block", lambda *_: None)]


@mutant("catalog without its newest block", "I15", "I1", "I4", quick=True)
def _() -> Sequence[Place]:
    real = storage.catalog.Checkpointer.batch

    def batch(self: Any) -> Any:
        found = real(self)
        found.blocks = found.blocks[:-1]
        return found

    return [(storage.catalog.Checkpointer, "batch", batch)]


@mutant("dedupe intervals not rebuilt after a crash", "I15", "I5", "I2", quick=True)
def _() -> Sequence[Place]:
    real = storage.opening.Opened._replay_block

    def replay(self: Any, *args: Any) -> None:
        real(self, *args)
        self.engine.holdings.producers.held.clear()

    return [(storage.opening.Opened, "_replay_block", replay)]
