"""The synchronous twins: each call of `Producer` and `Client`, from code without an event loop.

Each twin has an event loop on a daemon thread of its own, so it works in any thread, and inside a
program that runs a loop elsewhere. `SyncProducer.send` goes straight to the buffer: it neither
blocks nor visits the loop. Do not fork while one is open: threads do not survive a fork.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import (
    AsyncGenerator,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

from .batch import ProducerStats
from .client import Client
from .errors import Incomplete, ProducerClosed, QuorumlogError
from .producer import Producer
from .results import IngestResult, QueryResult, SqlResult

T = TypeVar("T")


class _DaemonThreads(ThreadPoolExecutor):
    """A daemon thread for each call (there are few: opening and closing files, resolving names).

    Why not the usual pool? It takes no more work once the interpreter starts to end, and that is
    when `logging.shutdown` asks us for the last words.
    """

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001  (handed to whoever awaits it)
                future.set_exception(error)

        threading.Thread(target=run, name="quorumlog-call", daemon=True).start()
        return future


class LoopThread:
    """An event loop on a daemon thread, until `stop`."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(_DaemonThreads(max_workers=1))
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    @property
    def ident(self) -> int | None:
        """The thread's id, as in `threading.get_ident()`."""
        return self._thread.ident

    @property
    def is_alive(self) -> bool:
        """False after `stop`."""
        return self._thread.is_alive()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs it on the loop; blocks until it is done. Interrupting the wait cancels it."""
        if not self._thread.is_alive():
            coroutine.close()
            raise ProducerClosed("closed")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """Ends the loop and its thread. May be called again."""
        if not self._thread.is_alive():
            return
        self.call(self._loop.shutdown_asyncgens())
        self.call(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class SyncProducer:
    """The synchronous twin of `Producer`: same arguments, a context manager.

    `send` and the others may be called from several threads.
    """

    def __init__(self, servers: Sequence[str], service: str, *args: Any, **settings: Any) -> None:
        self._producer = Producer(servers, service, *args, **settings)
        self._thread: LoopThread | None = None

    def start(self) -> Self:
        """What `with` does: opens the buffer, starts sending."""
        if self._thread is not None:
            raise ProducerClosed("a producer is started once")
        self._thread = LoopThread("quorumlog-producer")
        try:
            self._thread.call(self._producer.__aenter__())
        except BaseException:
            self._thread.stop()
            raise
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        thread = self._started()
        if not thread.is_alive:  # closed inside the block
            return
        try:
            thread.call(self._producer.__aexit__(kind, error, traceback))
        finally:
            thread.stop()

    def _started(self) -> LoopThread:
        if self._thread is None:
            raise ProducerClosed("the producer is not started: use `with SyncProducer(...)`")
        return self._thread

    @property
    def name(self) -> str:
        """The producer's name on the wire."""
        return self._producer.name

    @property
    def epoch(self) -> int:
        """The epoch under which rows are numbered now."""
        return self._producer.epoch

    @property
    def ack_till(self) -> int:
        """The largest seq such that all up to it are durable on a quorum."""
        return self._producer.ack_till

    @property
    def last_seq(self) -> int:
        """The seq of the newest row taken; after opening, of the newest row that the buffer kept."""
        return self._producer.last_seq

    @property
    def waiting(self) -> int:
        """Rows taken and not yet durable on a quorum."""
        return self._producer.waiting

    @property
    def failure(self) -> QuorumlogError | None:
        """Why rows wait: the latest failure, None while all is well."""
        return self._producer.failure

    @property
    def stats(self) -> ProducerStats:
        """Counts since the start."""
        return self._producer.stats

    @property
    def thread_id(self) -> int | None:
        """The id of the thread that sends."""
        return None if self._thread is None else self._thread.ident

    def send(self, **fields: Any) -> int:
        """As `Producer.send`: never blocks, any thread."""
        return self._producer.send(**fields)

    def flush(self, timeout: float | None = 30.0) -> None:
        """As `Producer.flush`."""
        self._started().call(self._producer.flush(timeout))

    def close(self, timeout: float | None = None) -> None:
        """As `Producer.close`; ends the thread."""
        thread = self._started()
        if not thread.is_alive:
            return
        try:
            thread.call(self._producer.close(timeout))
        finally:
            thread.stop()


class SyncClient:
    """The synchronous twin of `Client`: same arguments, a context manager; iterators are plain."""

    def __init__(self, servers: Sequence[str], **settings: Any) -> None:
        self._client = Client(servers, **settings)
        self._thread: LoopThread | None = None

    def __enter__(self) -> Self:
        if self._thread is None:
            self._thread = LoopThread("quorumlog-client")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes all connections and ends the thread."""
        thread, self._thread = self._thread, None
        if thread is not None:
            try:
                thread.call(self._client.close())
            finally:
                thread.stop()

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.__enter__()._running().call(coroutine)

    def _running(self) -> LoopThread:
        assert self._thread is not None, "started by __enter__"
        return self._thread

    def _iterate(self, make: Callable[[], AsyncGenerator[T, None]]) -> Generator[T, None, None]:
        """The items of an async generator, one visit to the loop each."""
        items = make()
        try:
            while True:
                try:
                    yield self._call(_next(items))
                except StopAsyncIteration:
                    return
        finally:
            self._call(_close(items))

    def query(self, *, limit: int = 100, **filters: Any) -> QueryResult:
        """As `Client.query`."""
        return self._call(self._client.query(limit=limit, **filters))

    def pages(self, *, limit: int = 1000, **filters: Any) -> Iterator[QueryResult]:
        """As `Client.pages`."""
        return self._iterate(lambda: self._client.pages(limit=limit, **filters))

    def rows(
        self, *, limit: int = 1000, partial: bool = False, **filters: Any
    ) -> Generator[dict[str, Any], None, None]:
        """As `Client.rows`."""
        for page in self.pages(limit=limit, **filters):
            if not (page.complete or partial):
                raise Incomplete("not all shards could be read", missing=page.missing)
            yield from page.rows

    def stream(
        self, format: str = "ndjson", *, partial: bool = False, **filters: Any
    ) -> Generator[Any, None, None]:
        """As `Client.stream`."""
        return self._iterate(lambda: self._client.stream(format, partial=partial, **filters))

    def stats(
        self,
        by: str | Sequence[str] | None = None,
        agg: str | Sequence[str] = "count",
        **filters: Any,
    ) -> dict[str, Any]:
        """As `Client.stats`."""
        return self._call(self._client.stats(by, agg, **filters))

    def histogram(
        self, step: str | None = None, by: str | Sequence[str] | None = None, **filters: Any
    ) -> dict[str, Any]:
        """As `Client.histogram`."""
        return self._call(self._client.histogram(step, by, **filters))

    def fields(self, **filters: Any) -> dict[str, Any]:
        """As `Client.fields`."""
        return self._call(self._client.fields(**filters))

    def values(self, field: str, **filters: Any) -> dict[str, Any]:
        """As `Client.values`."""
        return self._call(self._client.values(field, **filters))

    def sql(self, statement: str, **filters: Any) -> SqlResult:
        """As `Client.sql`."""
        return self._call(self._client.sql(statement, **filters))

    def cluster(self) -> dict[str, Any]:
        """As `Client.cluster`."""
        return self._call(self._client.cluster())

    def nodes(self) -> dict[str, Any]:
        """As `Client.nodes`."""
        return self._call(self._client.nodes())

    def ring(self) -> dict[str, Any]:
        """As `Client.ring`."""
        return self._call(self._client.ring())

    def health(self) -> dict[str, Any]:
        """As `Client.health`."""
        return self._call(self._client.health())

    def ingest_lines(
        self, lines: bytes | str | Iterable[Mapping[str, Any]], *, service: str | None = None
    ) -> IngestResult:
        """As `Client.ingest_lines`."""
        return self._call(self._client.ingest_lines(lines, service=service))

    def ingest_table(self, table: Any, *, service: str | None = None) -> IngestResult:
        """As `Client.ingest_table`."""
        return self._call(self._client.ingest_table(table, service=service))


async def _next(items: AsyncGenerator[T, None]) -> T:
    return await anext(items)


async def _close(items: AsyncGenerator[Any, None]) -> None:
    await items.aclose()
