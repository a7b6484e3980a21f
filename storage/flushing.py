"""Writes what changed into the catalog, off the event loop, one flush at a time. A shell."""

import asyncio
from collections.abc import Callable

from runtime.failpoints import failpoint
from runtime.logs import get_logger
from runtime.tasks import Workers
from storage.catalog import Catalog, Checkpointer

log = get_logger(__name__)


class CatalogFlusher:
    """The catalog and what it lacks. A cancelled caller does not stop a write half-way."""

    def __init__(
        self,
        catalog: Catalog,
        checkpointer: Checkpointer,
        chores: Workers,
        failed: Callable[[], None],
    ) -> None:
        self._catalog, self._checkpointer, self._chores = catalog, checkpointer, chores
        self._failed = failed
        self._task: asyncio.Task[bool] | None = None

    async def flush(self) -> bool:
        """Waits for the flush under way, or makes one; whether it succeeded."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._write())
        return await asyncio.shield(self._task)

    async def flush_all(self) -> bool:
        """Flushes all that has changed before the call; whether it is in the catalog now."""
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])
        return await self.flush()

    async def remake(self) -> bool:
        """Throws the catalog away and writes all of it, from memory; whether that succeeded."""
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])
        self._task = asyncio.get_running_loop().create_task(self._remake())
        return await asyncio.shield(self._task)

    async def _remake(self) -> bool:
        await self._begin_anew()
        return await self._write()

    async def _begin_anew(self) -> None:
        """An empty catalog, but for the holes: nothing else on disk tells of them."""
        self._checkpointer.forget()
        await self._chores.run(self._catalog.create, self._checkpointer.holes())

    async def _write(self) -> bool:
        if not self._checkpointer.changed:
            return True
        batch = self._checkpointer.batch()
        try:
            failpoint("catalog.before-flush")
            await self._chores.run(self._catalog.write, batch)
            failpoint("catalog.after-flush")
        except Exception as error:  # noqa: BLE001 - it is only a checkpoint: made anew, from memory
            log.error("the catalog could not be written", error=error)
            self._failed()
            try:
                await self._begin_anew()
            except Exception as error:  # noqa: BLE001 - the next flush tries again
                log.error("no catalog can be made", error=error)
            return False
        return True
