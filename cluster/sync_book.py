"""What is known of a node's own gaps, by shard and peer. Pure; times in microseconds of wall clock."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from cluster.sync_shards import SyncReport


@dataclass(slots=True)
class _Shard:
    """By peer: when all of the shard was compared, and entries known to lack here."""

    compared: dict[str, int] = field(default_factory=dict)
    lacking: dict[str, int] = field(default_factory=dict)
    repaired_at: int | None = None
    repaired_entries: int = 0
    repaired_bytes: int = 0


class SyncBook:
    """Fed with each report; shards that are no longer owned, and peers that no longer own them, are
    dropped.
    """

    def __init__(self) -> None:
        self._shards: dict[int, _Shard] = {}

    def keep(self, peers_by_shard: dict[int, tuple[str, ...]]) -> None:
        """These shards are owned, together with these peers."""
        self._shards = {s: self._shards.get(s, _Shard()) for s in peers_by_shard}
        for shard, peers in peers_by_shard.items():
            one = self._shards[shard]
            one.compared = {p: at for p, at in one.compared.items() if p in peers}
            one.lacking = {p: count for p, count in one.lacking.items() if p in peers}

    def note(self, peer: str, shards: Iterable[int], report: SyncReport, now: int) -> None:
        """What a call found, also one that failed."""
        for shard in shards:
            one = self._shards.get(shard)
            if one is None:
                continue
            stored = report.stored_by_shard.get(shard, 0)
            left = report.lacking_by_shard.get(shard, 0) - stored
            if report.compared:
                one.lacking[peer] = max(0, left)
                one.compared[peer] = now
            elif left > 0:
                one.lacking[peer] = left
            if stored:
                one.repaired_at = now
                one.repaired_entries += stored
                one.repaired_bytes += report.bytes_by_shard.get(shard, 0)

    def lacking(self) -> int:
        """Entries known to lack here, after the last look at each peer."""
        return sum(max(one.lacking.values(), default=0) for one in self._shards.values())

    def compared_at(self, peers_by_shard: dict[int, tuple[str, ...]]) -> int | None:
        """Since when each shard has been compared with each peer; None while one has not."""
        times = [
            self._shards[shard].compared.get(peer) if shard in self._shards else None
            for shard, peers in peers_by_shard.items()
            for peer in peers
        ]
        known = [at for at in times if at is not None]
        return min(known, default=None) if len(known) == len(times) else None

    def listed(self) -> list[dict[str, Any]]:
        """One line a shard. `compared_at` by peer."""
        return [
            {
                "shard": shard,
                "lacking": max(one.lacking.values(), default=0),
                "compared_at": dict(sorted(one.compared.items())),
                "repaired_at": one.repaired_at,
                "repaired_entries": one.repaired_entries,
                "repaired_bytes": one.repaired_bytes,
            }
            for shard, one in sorted(self._shards.items())
        ]
