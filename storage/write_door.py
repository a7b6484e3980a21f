"""What a storage node takes now: all puts, or only what makes room on it, or nothing."""

from records.errors import DiskFull, NotReady, StorageFailed
from storage.disk_floor import DiskFloor
from storage.gauges import Gauges
from storage.settings import StorageSettings
from storage.wal import Wal


class WriteDoor:
    """Mixed into StorageService, which sets these."""

    node_id: str
    settings: StorageSettings
    _ready: bool
    _disk: DiskFloor
    _wal: Wal
    _gauges: Gauges

    @property
    def read_only(self) -> bool:
        """Whether puts are refused: little disk, or a log that failed twice."""
        return self._disk.low or self._wal.failure is not None

    def _spare_bytes(self) -> int:
        return self._disk.free_bytes - self.settings.disk_floor_bytes

    def _check_ready(self) -> None:
        if not self._ready:
            raise NotReady("storage is not open")

    def _check_writable(self) -> None:
        self._check_ready()
        if self._disk.low:
            raise self._full()
        self._check_log()

    def _check_log(self) -> None:
        """For what may be written with little disk: it is small, and frees space."""
        self._check_ready()
        if self._wal.failed_for_space:
            raise self._full()
        if self._wal.failure is not None:
            self._gauges.refused.labels("log").inc()
            raise StorageFailed(f"the log of node {self.node_id} has failed: {self._wal.failure}")

    def _full(self) -> DiskFull:
        self._gauges.refused.labels("disk").inc()
        text = f"node {self.node_id} has {self._disk.free_bytes} bytes left"
        return DiskFull(text, retry_after_seconds=5.0)
