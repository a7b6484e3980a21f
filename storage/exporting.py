"""Runs exports, one at a time: snapshot, room on the disk, a worker. A shell."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from records.errors import BlockCorrupt, DiskFull, Overloaded
from records.messages import ScanRequest
from records.predicates import ScanPlan
from runtime.tasks import Workers
from storage.block_files import BlockFiles
from storage.engine import Engine
from storage.export import Exported, ExportedFile, copied_bytes, export
from storage.hot import HotSet
from storage.scan_select import narrowed, select, take_snapshot

Reading = Callable[..., Awaitable[tuple[Path, tuple[ExportedFile, ...]]]]
#: Damaged blocks met in one export before it is given up.
_TRIES_MAX = 20


class Exports:
    """Exports of one node. `room` says how many bytes may be written."""

    def __init__(
        self,
        root: Path,
        engine: Engine,
        files: BlockFiles,
        hot: HotSet,
        workers: Workers,
        reading: Reading,
        room: Callable[[], int],
    ) -> None:
        self._root, self._engine, self._files, self._hot = root, engine, files, hot
        self._workers, self._reading, self._room = workers, reading, room
        self._running = False

    async def run(self, tenant: str, shards: Sequence[int]) -> Exported:
        """A snapshot of a tenant's rows in these shards, as files.

        Raises:
            Overloaded: another export runs.
            DiskFull: what has to be copied does not fit.
        """
        if self._running:
            raise Overloaded("another export of files runs", retry_after_seconds=2.0)
        self._running = True
        try:
            return await self._until_whole(tenant, tuple(shards))
        finally:
            self._running = False

    async def _until_whole(self, tenant: str, shards: tuple[int, ...]) -> Exported:
        request = ScanRequest(ScanPlan(tenant=tenant), shards, shards)
        for _ in range(_TRIES_MAX):
            snapshot = take_snapshot(self._engine.holdings, request)
            slices = select(snapshot, narrowed(self._engine.holdings, request))
            if copied_bytes(slices) > self._room():
                raise DiskFull(f"an export needs {copied_bytes(slices)} bytes")
            try:
                folder, files = await self._reading(
                    self._workers,
                    export,
                    self._root,
                    slices,
                    self._files,
                    self._hot,
                    snapshot.rules,
                )
                return Exported(folder, files, snapshot.digests, snapshot.lost, snapshot.holes)
            except BlockCorrupt as error:  # set aside, or merged, by now: a new snapshot knows
                if "ordinal" not in error.details:
                    raise
        raise Overloaded("too many blocks changed under the export", retry_after_seconds=5.0)
