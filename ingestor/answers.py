"""From counted entries to what the client is told; and from what it asks for to the acks needed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cluster.view import ClusterView
from ingestor.batch import WriteResult
from ingestor.outcomes import EntryTally
from ingestor.shards import FAILED_SERVICE
from ingestor.write_metrics import WriteMetrics
from records.consistency import QuorumPolicy
from records.errors import InvalidRequest
from records.ids import EntryId, digest_id, ulid


@dataclass(frozen=True, slots=True)
class AckRule:
    """How many owners must confirm: W, or more where a request asks for it; never fewer."""

    w: int
    wanted: int
    every: bool = False

    def needed(self, owners: int) -> int:
        """Acks for an entry with that many owners."""
        return max(self.w, owners if self.every else self.wanted)


def ack_rule(policy: QuorumPolicy, ack: str | None) -> AckRule:
    """The rule of a request. `ack`: one, quorum, all or a number of owners.

    Raises:
        InvalidRequest: not one of these, or more than N.
    """
    if ack is not None and ack.isdecimal():
        wanted = int(ack)
        if wanted > policy.n:
            raise InvalidRequest(f"{wanted} acks are asked for, there are {policy.n} replicas")
        return AckRule(policy.w, wanted)
    return AckRule(policy.w, policy.acks_needed(ack, policy.n), every=ack == "all")


def batch_id(entry_ids: Iterable[EntryId]) -> str:
    """A ULID-shaped name of the entries of a batch; the same rows sent again get the same."""
    return ulid(digest_id(b"batch", *sorted(entry_ids)))


def counted(entries: Sequence[EntryTally], view: ClusterView, metrics: WriteMetrics) -> WriteResult:
    """The result of entries that are all won; rows of `_failed` count only towards `durable`."""
    rows = [one for one in entries if one.entry.service != FAILED_SERVICE]
    duplicates = sum(one.duplicates for one in rows)
    accepted = sum(one.entry.row_count for one in rows) - duplicates
    metrics.rows.inc(accepted)
    metrics.duplicates.inc(duplicates)
    owners = max((len(view.owners(one.entry.shard)) for one in entries), default=view.quorum.n)
    durable = min((one.tally.acks for one in entries), default=owners)
    name = batch_id(one.entry.entry_id for one in rows or entries)
    return WriteResult(name, accepted, duplicates, durable, owners)
