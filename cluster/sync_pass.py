"""One run of a node over all its peers, as `quorumlog repair` starts it: what it has to do, and how far it
is.
"""

from dataclasses import dataclass, field
from typing import Any

from cluster.sync_shards import SyncReport

#: Sessions in a row that mend nothing though something lacks; then the pass gives that peer up.
FRUITLESS_MAX = 3


@dataclass(slots=True)
class Pass:
    """`shards`: None means all that the node owns. Times in microseconds; `failures` by peer."""

    number: int
    shards: tuple[int, ...] | None
    started_at: int
    peers_total: int = 0
    peers_done: int = 0
    found: int = 0
    repaired: int = 0
    bytes: int = 0
    finished_at: int | None = None
    failures: dict[str, str] = field(default_factory=dict)
    begun: bool = False
    _fruitless: int = 0

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.finished_at is None

    def widen(self, shards: tuple[int, ...] | None) -> None:
        """Takes these as well (None: all). Only before it has begun."""
        assert not self.begun, "it compares already"
        both = self.shards is not None and shards is not None
        self.shards = tuple(sorted({*(self.shards or ()), *(shards or ())})) if both else None

    def takes(self, shard: int) -> bool:
        """Whether the pass is about this shard."""
        return self.shards is None or shard in self.shards

    def note(self, peer: str, report: SyncReport, error: str | None) -> bool:
        """Counts a session; whether the peer needs another one."""
        self.found += max(report.stored, report.lacking)
        self.repaired += report.stored
        self.bytes += report.block_bytes
        if error is not None:
            self.failures[peer] = error
        elif not report.complete:
            self._fruitless = 0 if report.stored else self._fruitless + 1
            if self._fruitless < FRUITLESS_MAX:
                return True
            self.failures[peer] = f"{report.lacking} entries could not be copied"
        self._fruitless = 0
        self.peers_done += 1
        return False

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `state` is running or done."""
        hidden = ("begun", "_fruitless")
        names = [name for name in self.__dataclass_fields__ if name not in hidden]
        fields = {name: getattr(self, name) for name in names}
        return {"state": "running" if self.running else "done", **fields}
