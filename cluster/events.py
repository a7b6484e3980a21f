"""What changed in the cluster, as a bounded list of events: the difference of two states, pure.

Each node keeps the last events that it saw itself; `/cluster/events` shows them.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any

from cluster.state_types import ClusterState

#: Events kept; a takeover of an ingestor's shards is one event, so this is days of a calm cluster.
KEPT = 1000


def differences(old: ClusterState, new: ClusterState) -> Iterator[dict[str, Any]]:
    """One event for each thing that changed, most basic first."""
    for node, member in sorted(new.members.items()):
        before = old.members.get(node)
        if before is None:
            yield {"event": "node joined", "node": node, "roles": list(member.roles)}
        elif before.incarnation != member.incarnation:
            yield {"event": "node restarted", "node": node, "incarnation": member.incarnation}
    for node in sorted(old.members.keys() - new.members.keys()):
        yield {"event": "node retired", "node": node}
    if old.ring_epoch != new.ring_epoch:
        yield {"event": "ring changed", "ring_epoch": new.ring_epoch}
    if old.quorum != new.quorum:
        yield {"event": "quorum changed", "quorum": list(new.quorum)}
    moved: dict[str, list[int]] = {}
    for shard, leader in sorted(new.leaders.items()):
        if old.leaders.get(shard) != leader:
            moved.setdefault(leader.node, []).append(shard)
    for node, shards in sorted(moved.items()):
        yield {"event": "shards led", "node": node, "shards": shards}


class EventLog:
    """The last events this node saw."""

    def __init__(self) -> None:
        self._events: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._state = ClusterState()

    def observe(self, state: ClusterState, wall_micros: int) -> list[dict[str, Any]]:
        """Adds what changed since the last state; the new events."""
        fresh = [
            {"at": wall_micros, "index": state.applied_index, **event}
            for event in differences(self._state, state)
        ]
        self._state = state
        self._events.extend(fresh)
        return fresh

    def listed(self) -> list[dict[str, Any]]:
        """Oldest first."""
        return list(self._events)
