"""Tasks and threads with an owner: Supervisor for named tasks, Workers for disk and CPU work."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, ParamSpec, TypeVar

from runtime.logs import get_logger

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")
log = get_logger(__name__)


class Supervisor:
    """Owns background tasks: each has a name, a failure is logged and counted, all end with the owner.

    Unlike asyncio.TaskGroup it outlives the failure of one task: a late replica's error must not end
    the node.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.failures = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping = False

    async def __aenter__(self) -> "Supervisor":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, name: str, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Starts `work`; the supervisor keeps the reference."""
        if self._stopping:
            work.close()
            raise RuntimeError(f"supervisor {self.name} is stopping")
        task = asyncio.get_running_loop().create_task(work, name=f"{self.name}:{name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures += 1
            log.error("background task failed", task=task.get_name(), error=error)

    async def stop(self, grace_seconds: float = 5.0) -> None:
        """Cancels what still runs and waits for it, at most `grace_seconds`."""
        self._stopping = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=grace_seconds)
            if pending:
                names = [task.get_name() for task in pending]
                log.error("tasks did not end", supervisor=self.name, tasks=names)

    async def forever(self, interval: Callable[[], float], step: Callable[[], Coroutine]) -> None:
        """Runs `step` again and again, sleeping between; a failed step is logged, then the next runs."""
        while True:
            try:
                await step()
            except Exception as error:  # noqa: BLE001 - a loop that must live
                self.failures += 1
                log.error("step failed", supervisor=self.name, step=step.__name__, error=error)
            await asyncio.sleep(interval())


class Workers:
    """A bounded thread pool for what takes more than about 1 ms of disk or CPU.

    The libraries that do the work release the GIL, so threads give real parallelism.
    """

    def __init__(self, threads: int, name: str = "worker") -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `work`. If the caller is cancelled, the work runs to its end unheard."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: work(*args, **kwargs))

    def share(self, work: Callable[[U], V], items: Sequence[U]) -> list[V]:
        """`work` on each item, results in order; called by work that runs on one of these threads.

        The caller does items itself, and free threads help: it never waits for a thread to come free, so
        any number of callers make progress. An error ends the work; what runs then runs to its end.
        """
        results: list[Any] = [None] * len(items)
        waiting = iter(range(len(items)))
        lock, failed = threading.Lock(), threading.Event()

        def run() -> None:
            while not failed.is_set():
                with lock:
                    index = next(waiting, None)
                if index is None:
                    return
                try:
                    results[index] = work(items[index])
                except BaseException:
                    failed.set()
                    raise

        helpers: list[Future[None]] = []
        with contextlib.suppress(RuntimeError):  # the pool is closing: alone then
            helpers += [self._pool.submit(run) for _ in range(min(self._threads, len(items)) - 1)]
        try:
            run()
        finally:
            done = [helper for helper in helpers if not helper.cancel()]
            wait(done)
        for helper in done:
            helper.result()
        return results

    def close(self) -> None:
        """Waits for running work, refuses more."""
        with contextlib.suppress(RuntimeError):
            self._pool.shutdown(wait=True, cancel_futures=True)
