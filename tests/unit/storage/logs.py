"""Log files as bytes, and a running log, for the tests of the log."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from records import envelope
from records.errors import StorageFailed
from runtime.metrics import Metrics
from storage.log_format import Record, RecordType, encode, padding
from storage.wal import LogHooks, Position, Wal, Written
from tests.unit.storage.samples import block_of, sequenced

SALT = 0x5EED


def framed(record: Record, at: int, durable: int, sequence: int = 1) -> bytes:
    """The bytes of one record that begins at offset `at`."""
    head = encode(
        record.type, envelope.packb(record.meta), len(record.body), sequence, SALT, durable
    )
    whole = head + bytes(record.body)
    return whole + bytes(padding(at + len(whole)))


def file_bytes(records: Sequence[tuple[Record, int]], sequence: int = 1) -> tuple[bytes, list[int]]:
    """A log file of (record, durable_upto) pairs, and the offset of each record."""
    data, offsets = b"", []
    for record, durable in records:
        offsets.append(len(data))
        data += framed(record, len(data), durable, sequence)
    return data, offsets


def block_record(number: int) -> Record:
    """A BLOCK record with three sequenced rows."""
    first = number * 10 + 1
    return Record(RecordType.BLOCK, None, bytes(block_of(number, sequenced(first, first + 2)).data))


class RunningLog:
    """A log on a directory; `append` awaits durability."""

    def __init__(self, directory: Path, hooks: LogHooks | None = None, **more: int | float) -> None:
        self.metrics = Metrics()
        options = {"file_bytes": 1 << 16, "idle_seconds": 30.0, **more}
        self.wal = Wal(directory, "n1", self.metrics, hooks=hooks, **options)  # type: ignore[arg-type]

    async def __aenter__(self) -> "RunningLog":
        self.wal.start(Position(0, 0))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.wal.stop()

    def begin(self, *records: Record) -> "asyncio.Future[list[Written]]":
        """Queues records; the future ends when they are durable."""
        answer: asyncio.Future[list[Written]] = asyncio.get_running_loop().create_future()

        def done(places: list[Written] | None, error: StorageFailed | None) -> None:
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(places or [])

        self.wal.append(records, done)
        return answer

    @property
    def syncs(self) -> int:
        """fdatasync calls that returned for appends."""
        return int(self.metrics.snapshot()["quorumlog_log_syncs_total"])
