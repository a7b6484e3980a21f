"""What a node asks of owners of shards that it need not lead, when a service is split. Shell.

A split moves no owner, but rows come to lie where an older state does not look for them. So owners are told
of the ring epoch that the split raised before anything relies on it. max(W, R) of them: every R owners that a
reader with the older state asks, and every W that a writer with it needs, hold one that knows.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from cluster.quorum_call import Caller, ask_quorum
from cluster.quorum_tally import Group
from cluster.replica_client import Replicas
from cluster.view import ClusterView
from records.block import ProducerKey
from records.errors import Fenced, StaleRingEpoch
from records.ids import EntryId
from runtime.deadline import Deadline

T = TypeVar("T")


class Elsewhere:
    """Questions to quorums of other shards. All raise QuorumUnavailable by the deadline."""

    def __init__(self, replicas: Replicas, caller: Caller) -> None:
        self._replicas = replicas
        self._caller = caller

    async def tell(self, view: ClusterView, shard: int, deadline: Deadline) -> None:
        """Enough owners of `shard` know the ring epoch of `view`, durably.

        Raises:
            StaleRingEpoch: one knows a newer ring.
        """

        async def tell(owner: str, limit: Deadline) -> None:
            await self._replicas.get(owner).raise_ring(view.ring_epoch, limit)

        await self._change("raise_ring", view, shard, tell, deadline)

    async def seal(
        self, view: ClusterView, shard: int, producer: ProducerKey, epoch: int, deadline: Deadline
    ) -> None:
        """Enough owners of `shard` refuse older epochs of a producer, durably, and know the ring.

        Raises:
            Fenced: one knows a newer epoch (details: `epoch`). StaleRingEpoch: one knows a newer ring.
        """

        async def seal(owner: str, limit: Deadline) -> int:
            replica, ring = self._replicas.get(owner), view.ring_epoch
            await replica.raise_ring(ring, limit)
            sealed = await replica.seal_producer_epoch(shard, producer, epoch, ring, limit)
            return sealed.newest

        answers = await self._change("seal_elsewhere", view, shard, seal, deadline)
        newest = max(answers.values())
        if newest > epoch:
            raise Fenced("a newer epoch of this producer exists", epoch=newest)

    async def _change(
        self,
        name: str,
        view: ClusterView,
        shard: int,
        call: Callable[[str, Deadline], Awaitable[T]],
        deadline: Deadline,
    ) -> dict[str, T]:
        """max(W, R) owners of each set that `shard` is written to have done it."""
        needed = max(view.quorum.w, view.quorum.r, view.quorum.n - view.acked_on + 1)
        sets = view.write_groups(shard)
        groups = [Group(frozenset(one), min(needed, len(one))) for one in sets]
        owners = dict.fromkeys(owner for one in sets for owner in one)
        fatal = (StaleRingEpoch,)
        return await ask_quorum(name, owners, call, groups, self._caller, deadline, fatal=fatal)

    async def newest_epoch(
        self, view: ClusterView, producer: ProducerKey, deadline: Deadline
    ) -> int:
        """The newest epoch that was issued to a producer, of whatever generation; 0: none.

        Its home shard is told of each before it is issued.
        """
        home = view.shard_of(*producer, 0)

        async def states(owner: str, limit: Deadline) -> int:
            found = await self._replicas.get(owner).producer_states(home, producer, limit)
            return max((one.newest_epoch for one in found.states), default=0)

        answers = await self._ask("newest_epoch", view, home, states, deadline)
        return max(answers.values())

    async def held(
        self, view: ClusterView, shard: int, ids: Sequence[EntryId], deadline: Deadline
    ) -> set[EntryId]:
        """Those of `ids` that an owner of `shard` holds: all that were acknowledged are among them.

        An owner that lost entries of it to damage refuses, and does not count.
        """

        async def absent(owner: str, limit: Deadline) -> list[EntryId]:
            return await self._replicas.get(owner).absent(shard, ids, limit)

        answers = await self._ask("absent", view, shard, absent, deadline)
        lacking = [set(found) for found in answers.values()]
        return set(ids) - set.intersection(*lacking)

    async def _ask(
        self,
        name: str,
        view: ClusterView,
        shard: int,
        call: Callable[[str, Deadline], Awaitable[T]],
        deadline: Deadline,
    ) -> dict[str, T]:
        """The answers of so many owners that they meet every W that acknowledged something."""
        owners = view.owners(shard)
        needed = max(1, len(owners) - view.acked_on + 1)
        return await ask_quorum(name, owners, call, needed, self._caller, deadline)
