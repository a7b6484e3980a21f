"""The producers this node currently leads: their ledgers, in a bounded book.

A session belongs to one leadership (shard, shard epoch) under one ring epoch, and is made anew when that
changes. A producer of a split service has one for each shard that its epochs are in. A write keeps the one
that it began with, also when the book has forgotten it or has another by then: what its own puts bring is
counted there. It holds nothing that could not be recovered from the owners; forgetting one costs a recovery.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable

from cluster.quorum_tally import Group
from ingestor.dedupe import Calls, ProducerLedger, Progress
from records.block import ProducerKey, Spans
from records.messages import ProducerState

#: (shard, shard epoch, ring epoch) that a session was recovered under.
Reign = tuple[int, int, int]


class ProducerSession:
    """One producer under one reign: a ledger for each of its epochs, and the newest epoch.

    `lock` is held while it is recovered or given a new epoch; `last` ends when the write before has.
    """

    def __init__(self, producer: ProducerKey, reign: Reign) -> None:
        self.producer = producer
        self.reign = reign
        self.newest_epoch = 0
        self.ready = False
        self.lock = asyncio.Lock()
        self.last: asyncio.Future[None] | None = None
        self._ledgers: dict[int, ProducerLedger] = {}

    def ledger(self, epoch: int) -> ProducerLedger:
        """The ledger of one epoch."""
        if epoch not in self._ledgers:
            self._ledgers[epoch] = ProducerLedger((*self.producer, epoch))
        return self._ledgers[epoch]

    def ledgers(self) -> list[ProducerLedger]:
        """Those of all epochs known."""
        return list(self._ledgers.values())

    def hear(self, owner: str, states: Iterable[ProducerState], sent: int, now: int) -> None:
        """Takes what an owner says of this producer."""
        for state in states:
            self.newest_epoch = max(self.newest_epoch, state.newest_epoch)
            self.ledger(state.producer[3]).hear(owner, state, sent, now)

    def progress(self, epoch: int, groups: Iterable[Group]) -> Progress:
        """Where an epoch stands, told from now on; see `ProducerLedger.progress`."""
        found = self._ledgers.get(epoch) or ProducerLedger((*self.producer, epoch))
        return found.progress(groups)

    def judges(self, epoch: int, spans: Spans, groups: Iterable[Group]) -> frozenset[str] | None:
        """See `ProducerLedger.judges`."""
        found = self._ledgers.get(epoch)
        return found.judges(spans, groups) if found else None

    def witnesses(
        self, epoch: int, spans: Spans, groups: Iterable[Group]
    ) -> list[tuple[str, Spans]]:
        """See `ProducerLedger.witnesses`."""
        return self.ledger(epoch).witnesses(spans, groups)

    def told(self, epoch: int) -> int:
        """The ackTill answered last."""
        found = self._ledgers.get(epoch)
        return found.told if found else 0


class ProducerBook:
    """Sessions by shard and producer; beyond `limit` the one longest unused is forgotten."""

    def __init__(self, limit: int) -> None:
        self.calls = Calls()
        self._limit = limit
        self._sessions: OrderedDict[tuple[int, ProducerKey], ProducerSession] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def session(self, producer: ProducerKey, reign: Reign) -> ProducerSession:
        """The session of a producer under `reign`, perhaps a new one that is not ready."""
        place = (reign[0], producer)
        found = self._sessions.get(place)
        if found is None or found.reign != reign:
            found = self._sessions[place] = ProducerSession(producer, reign)
        self._sessions.move_to_end(place)
        while len(self._sessions) > self._limit:
            self._sessions.popitem(last=False)
        return found
