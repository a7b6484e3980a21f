"""`Producer`: rows go in without waiting, and are on a quorum when `flush` returns.

What is promised: each row that `send` took reaches the store exactly once, through failovers,
restarts of servers, and (with a buffer file) crashes of this process, as long as the buffer survives
and the rows were written to it. What that costs: a row is on the network only after it was handed to
the operating system, a few milliseconds after `send`; those few milliseconds are what a `kill -9` can
take. With `durable=True` the file is synced first, so that a power cut takes no more either.

Not promised without a buffer file: rows that are only in memory end with the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .answers import Rejected
from .batch import ProducerStats, SendSettings
from .buffer import Buffer, BufferLimits
from .errors import BufferFull, FlushTimeout, ProducerClosed, QuorumlogError
from .leaders import Leaders
from .rows import encode_row
from .sender import Sender
from .wire import Wire, WireSettings

log = logging.getLogger(__name__)


def _log_rejected(item: Rejected) -> None:
    log.warning("row rejected: seq %d, %s: %s", item.seq, item.code, item.reason)


def _close_late(opening: asyncio.Task[Buffer]) -> None:
    """The caller was cancelled while the buffer was being opened: give its lock back."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


class Producer:
    """An async context manager; `send` may be called from any thread inside it.

    Args:
        servers: addresses of any members, tried in turn; the others are discovered.
        service: the service that all rows belong to.
        buffer: the buffer file, of this producer alone; None keeps rows in memory only.
        producer: the name under which rows are numbered, one writer at a time. Default: one that
            no one else has, kept in the buffer file. Give a name only if it must be stable: then a
            new epoch is asked for whenever the buffer is new.
        batch_rows: rows of one request at most (1 to 50 000). More is cheaper for the servers.
        linger_seconds: how long a lone row waits for company. `flush` does not wait.
        max_buffer_bytes: rows without an ack, beyond it `send` raises BufferFull.
        max_memory_bytes: of these, how much is held in memory too (only with a file).
        keep_acked_bytes, keep_acked_seconds: acked rows that are kept, so that they can be sent again
            when an operator asks. Default: 16 MiB in the file, 2 MiB in memory without one; an hour.
        replay_poll_seconds: how often an idle producer asks whether something is asked for.
        durable: sync the file before rows are sent.
        max_in_flight: requests without an answer at one time.
        ack: `one`, `quorum` or `all` instead of the cluster's default.
        spread: take a new epoch when the service is spread over more shards. False for a source that
            goes by `last_seq`, as a new epoch numbers rows from 1.
        token, tenant, tls: credentials, tenant (`X-Scope-OrgID`), TLS settings for https.
        on_rejected: called on the loop for each row that the server will never take.
        close_timeout_seconds: how long leaving the context waits for acks.
        clock_ns: the wall clock, nanoseconds since 1970.
    """

    def __init__(
        self,
        servers: Sequence[str],
        service: str,
        buffer: str | os.PathLike[str] | None = None,
        producer: str | None = None,
        *,
        batch_rows: int = 5000,
        batch_bytes: int = 8 << 20,
        linger_seconds: float = 0.05,
        max_buffer_bytes: int = 1 << 30,
        max_memory_bytes: int = 64 << 20,
        keep_acked_bytes: int | None = None,
        keep_acked_seconds: float = 3600.0,
        replay_poll_seconds: float = 300.0,
        durable: bool = False,
        max_in_flight: int = 1,
        ack: str | None = None,
        spread: bool = True,
        token: str | None = None,
        tenant: str | None = None,
        tls: ssl.SSLContext | None = None,
        connect_timeout_seconds: float = 2.0,
        request_timeout_seconds: float = 12.0,
        close_timeout_seconds: float = 10.0,
        on_rejected: Callable[[Rejected], None] = _log_rejected,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        if not 1 <= batch_rows <= 50_000:
            raise ValueError(f"batch_rows must be in 1..50000, got {batch_rows}")
        if max_in_flight < 1:
            raise ValueError(f"max_in_flight must be at least 1, got {max_in_flight}")
        if replay_poll_seconds <= 0:
            raise ValueError(f"replay_poll_seconds must be above 0, got {replay_poll_seconds}")
        if ack not in (None, "one", "quorum", "all"):
            raise ValueError(f"ack must be one, quorum or all, got {ack!r}")
        for name, text in (("service", service), ("producer", producer)):
            if text is not None and not 1 <= len(text) <= 128:
                raise ValueError(f"{name} must have 1 to 128 characters, got {len(text)}")
        self._leaders = Leaders(servers)
        self._service = service
        self._path = (
            None if buffer is None else Path(buffer).absolute()
        )  # the application may change its folder
        self._name = producer
        kept = (2 << 20 if buffer is None else 16 << 20) if keep_acked_bytes is None else None
        self._limits = BufferLimits(
            max_buffer_bytes,
            max_memory_bytes,
            durable,
            kept if kept is not None else keep_acked_bytes or 0,
            keep_acked_seconds,
        )
        self._wire_settings = WireSettings(
            token, tenant, tls, connect_timeout_seconds, request_timeout_seconds
        )
        self._send_settings = SendSettings(
            batch_rows, batch_bytes, linger_seconds, max_in_flight, ack, replay_poll_seconds, spread
        )
        self._close_timeout_seconds = close_timeout_seconds
        self._on_rejected = on_rejected
        self._clock_ns = clock_ns
        self._buffer: Buffer | None = None
        self._sender: Sender | None = None
        self._wire: Wire | None = None
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = False
        #: Counts since the start.
        self.stats = ProducerStats()

    # What it is.

    @property
    def name(self) -> str:
        """The producer's name on the wire."""
        return self._opened().meta.producer

    @property
    def epoch(self) -> int:
        """The epoch under which rows are numbered now; 0 while it is being asked for."""
        return self._opened().meta.epoch

    @property
    def ack_till(self) -> int:
        """The largest seq such that all up to it are durable on a quorum."""
        return self._opened().meta.ack_till

    @property
    def last_seq(self) -> int:
        """The seq of the newest row taken; after opening, of the newest row that the buffer kept.

        A source with positions of its own goes on behind it after a crash, as long as each of its
        rows was sent under one epoch (`spread=False`).
        """
        return self._opened().last_seq

    @property
    def waiting(self) -> int:
        """Rows taken and not yet durable on a quorum."""
        return 0 if self._sender is None else self._sender.waiting

    @property
    def failure(self) -> QuorumlogError | None:
        """Why rows wait: the latest failure, None while all is well."""
        if self._sender is None or self._buffer is None:
            return None
        return self._buffer.failure or self._sender.failure

    def _opened(self) -> Buffer:
        if self._buffer is None:
            raise ProducerClosed("the producer is not started: use `async with Producer(...)`")
        return self._buffer

    # What it does.

    def send(self, **fields: Any) -> int:
        """Takes one row; returns its seq. Never blocks: no I/O, no waiting. Any thread.

        `timestamp` is now unless given (datetime, RFC 3339 text or Unix time). The seq stands
        unless this producer has to ask for a new epoch.

        Raises:
            BufferFull: not taken; counted in `stats.rows_refused_full`.
            InvalidRow: not taken; a reserved name (`seq`, `service`), or no JSON.
            Fenced: not taken; a newer producer writes under this name.
            ProducerClosed: not taken; outside the context.
        """
        buffer = self._opened()
        if self._closing:
            raise ProducerClosed("the producer is closed")
        if self._sender is not None and self._sender.fatal is not None:
            raise self._sender.fatal
        body = encode_row(fields, self._clock_ns())
        try:
            return buffer.append(body)
        except BufferFull:
            self.stats.rows_refused_full += 1
            raise

    async def flush(self, timeout: float | None = 30.0) -> None:
        """Returns when all rows taken before are durable on a quorum, or refused for good.

        Raises:
            FlushTimeout: after `timeout` seconds; the rows stay, and are sent on.
            Fenced, Unauthorized, InvalidRequest: waiting longer would not help.
        """
        self._opened()
        sender = self._sender
        assert sender is not None, "opened together with the buffer"
        try:
            async with asyncio.timeout(timeout):
                await sender.settled()
        except TimeoutError:
            waiting = sender.waiting
            raise FlushTimeout(
                f"{waiting} rows are not acknowledged after {timeout} s: {self.failure}",
                waiting=waiting,
            ) from self.failure

    async def __aenter__(self) -> Self:
        """Opens the buffer (its rows without an ack are sent again) and starts sending.

        Does not need a server: rows wait until there is one.
        """
        if self._buffer is not None or self._closing:
            raise ProducerClosed("a producer is started once")
        self._loop = asyncio.get_running_loop()
        opening = asyncio.create_task(
            asyncio.to_thread(
                Buffer, self._path, self._service, self._name, self._limits, self._on_ready
            )
        )
        try:
            buffer = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_late)
            raise
        self._buffer = buffer
        self._wire = Wire(self._wire_settings)
        self._sender = Sender(
            buffer,
            self._wire,
            self._leaders,
            self._send_settings,
            self.stats,
            self._on_rejected,
        )
        self._task = asyncio.create_task(self._sender.run(), name="quorumlog-sender")
        return self

    def _on_ready(self) -> None:
        """From any thread."""
        loop = self._loop
        assert loop is not None, "set before the buffer is opened"
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody to wake
            loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if self._sender is not None:
            self._sender.wake()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.close()
        except QuorumlogError as closing:
            if error is None:
                raise
            log.error("while leaving on %r: %s", error, closing)

    async def close(self, timeout: float | None = None) -> None:
        """Waits for acks (`close_timeout_seconds` by default), then stops. May be called again.

        With a buffer file, rows without an ack stay in it and are sent by the next producer that
        opens it.

        Raises:
            FlushTimeout: only without a file: the rows that are lost with it.
            Fenced, Unauthorized, InvalidRequest: as `flush`.
        """
        if self._closing or self._buffer is None:
            self._closing = True
            return
        self._closing = True
        try:
            limit = self._close_timeout_seconds if timeout is None else timeout
            await self.flush(limit)
        except FlushTimeout as error:
            if self._path is None:
                raise
            log.warning("%s; they stay in %s", error, self._path)
        finally:
            await self._stop()

    async def _stop(self) -> None:
        assert self._task is not None, "started"
        assert self._wire is not None, "started"
        assert self._buffer is not None, "started"
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._wire.close()
        await asyncio.to_thread(self._buffer.close)
        if self._path is not None and self._buffer.unwritten:
            log.error("%d rows could not be written to %s", self._buffer.unwritten, self._path)
