"""The storage node's part when shards move: hand over, take over, let go. `storage.handing` decides."""

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence

from records.errors import NotReady
from records.handover import Handover
from runtime.failpoints import failpoint
from runtime.logs import get_logger
from storage.engine import Engine
from storage.handing import give, ids_of, raise_ring_epoch, shed, take
from storage.log_format import Record

log = get_logger(__name__)


class ShardMoves:
    """One per store. Use on its event loop.

    A node with little disk gives shards away and lets them go, or it would stay full for ever: that is a few
    records, which the floor leaves room for. It takes none.
    """

    def __init__(
        self,
        engine: Engine,
        append: Callable[[Sequence[Record]], Awaitable[None]],
        thinned: Callable[[Iterable[int]], None],
        check_log: Callable[[], None],
        check_writable: Callable[[], None],
        check_readable: Callable[[], None],
    ) -> None:
        """`check_log` raises if the log takes nothing, `check_writable` also while puts are refused.

        `check_readable`: while reads are. What is given to a new owner is a read: the store may be another
        than the one that the cluster knows, until its node has registered.
        """
        self._engine, self._append, self._thinned = engine, append, thinned
        self._check_log, self._check_writable = check_log, check_writable
        self._check_readable = check_readable

    async def hand_over(self, shard: int, ring_epoch: int) -> Handover:
        """What a new owner must know of `shard`; no put of a ring before `ring_epoch` is taken from now on.

        Durable when it returns, and every put before it is applied: a list of entries asked for now has
        all that was acknowledged under older rings with the help of this node.

        Raises:
            NotReady: damage took rows of it, not all back: this owner is none of the N-W+1.
            StaleRingEpoch: a newer ring is known here. TooLarge, DiskFull, StorageFailed.
        """
        self._check_readable()
        self.check_whole(shard)
        self._check_log()
        await self._append([raise_ring_epoch(self._engine, ring_epoch)])
        failpoint("move.hand-over")
        return give(self._engine, shard)

    async def raise_ring(self, ring_epoch: int) -> None:
        """Takes no put of an older ring, and tells readers of this one; durable when it returns.

        Raises:
            StaleRingEpoch: a newer ring is known here. DiskFull, StorageFailed.
        """
        self._check_log()
        await self._append([raise_ring_epoch(self._engine, ring_epoch)])
        failpoint("move.raise-ring")

    def check_whole(self, shard: int) -> None:
        """Raises NotReady if damage took entries of a shard, and not all are back."""
        if self._engine.holdings.holes.within((shard,)):
            raise NotReady(f"damage took rows of shard {shard} here, not all back yet")

    def entry_ids(self, shard: int, whole: bool = False) -> bytes:
        """The 16-byte ids of the entries held of `shard`, in the order of their blocks.

        Raises:
            NotReady: reads are not served yet; or `whole`, and damage took some that are not back.
        """
        self._check_readable()
        if whole:
            self.check_whole(shard)
        return ids_of(self._engine, shard)

    async def take_over(self, handed: Handover, ring_epoch: int) -> None:
        """Takes what the owners before had; durable when it returns. Repeating it changes nothing.

        Raises:
            StaleRingEpoch: a newer ring is known here. DiskFull, StorageFailed.
        """
        self._check_writable()
        record = raise_ring_epoch(self._engine, ring_epoch)
        await self._append([record, *take(self._engine, handed)])
        failpoint("move.take-over")

    def let_go(self, shards: Collection[int], ring_epoch: int) -> int:
        """Forgets the entries of `shards`, none of which this node owns under ring `ring_epoch`; how many.

        They are gone from memory at once, from the disk once the blocks around them are written anew.

        Raises:
            StaleRingEpoch: a newer ring is known here, under which it may own one.
        """
        self._check_log()
        entries, ordinals = shed(self._engine, shards, ring_epoch)
        self._thinned(ordinals)
        if entries:
            failpoint("move.let-go")
            log.info("copies of shards that left were let go", shards=len(shards), entries=entries)
        return entries
