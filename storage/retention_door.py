"""Retention at the storage service's door: what is hidden, and how far its removal is."""

from typing import Any

from records.block import EntryHeader
from records.errors import NotReady
from storage.engine import Engine
from storage.retention import Retention
from storage.retiring import Retiring


class RetentionDoor:
    """Mixed into StorageService, which sets these."""

    _engine: Engine
    _retiring: Retiring
    _ready: bool
    _reads_held: bool

    def observe_retention(self, retention: Retention) -> None:
        """Hides from now on what these watermarks and deletes hide; then reads are served.

        An older state than the one known changes nothing.
        """
        self._retiring.observe(retention)
        self._reads_held = False

    def observe_index(self, index: int) -> None:
        """The replicated state up to `index` is known, and hides nothing more than what was told."""
        self._retiring.seen(index)

    def hold_reads(self) -> None:
        """Refuses reads until `observe_retention`: what was deleted in the meantime must not show."""
        self._reads_held = True

    def may_take(self, tenant: str, service: str, max_ts: int) -> bool:
        """Whether an entry may be taken as a repair or a hint; False if it is below the watermark.

        A put looks as well: to ask before spares sending. `service`: of a sequenced entry; "" for others,
        which may hold several. `max_ts`: of its last row, microseconds.
        """
        return not self._engine.holdings.retention.expired(tenant, service, max_ts)

    def admits(self, entry: EntryHeader) -> bool:
        """`may_take` of an entry by its header."""
        return self.may_take(entry.tenant, entry.service if entry.sequenced else "", entry.max_ts)

    def retention_progress(self, delete: str = "") -> dict[str, Any]:
        """How far this node is: the state it follows, and of one delete how many blocks are to be cleared.

        Raises:
            NotReady: before reads are served; a store that is not admitted answers for nothing.
        """
        if not self._ready or self._reads_held:
            raise NotReady("storage is not open")
        return self._retiring.progress(delete)
