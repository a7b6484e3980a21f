"""Who owns what at each index of the agreed log, and what a store may let go of: the checks' own reckoning.

Nothing of the product is asked but the replicated state: owner sets are worked out again here from ring and
moves, watermarks from the state's plain values.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from chaos.sim.consensus import SimLog
from chaos.sim.corpus import HOUR
from chaos.sim.node import SimNode
from cluster.state_types import COPYING, ClusterState
from records.block import EntryHeader
from ring.serde import from_dict

Owners = tuple[str, ...]
#: Virtual seconds between two looks at what stores hold.
LOOK_SECONDS = 0.2
#: Looks after which what a node knows must have come to its store.
LOOKS = 5
#: The last ring that was looked at, and its rows: mostly the same one is asked for again.
_LAST: list[tuple[Any, tuple[Owners, ...]]] = [(None, ())]


def _table(ring: Any) -> tuple[Owners, ...]:
    """The rows of a ring as the state keeps it."""
    if _LAST[0][0] is not ring:
        _LAST[0] = ring, tuple(tuple(row) for row in from_dict(ring).table)
    return _LAST[0][1]


def owner_sets(state: ClusterState, shard: int) -> tuple[Owners, ...]:
    """The owners that are read; then, while the shard moves, the other set that writes go to as well."""
    row = _table(state.ring)[shard]
    move = state.moving.get(shard)
    if move is None or not (move.source or move.target):
        return (row,)
    given, taken = (move.source, move.target)
    if move.stage != COPYING:  # the row has the target already
        given, taken = taken, given
    other = {*row, taken} - {given, ""}
    return row, tuple(sorted(other))


def owns(state: ClusterState, shard: int, node: str) -> bool:
    """Whether the node is in some owner set of the shard."""
    return any(node in owners for owners in owner_sets(state, shard))


def hidden_before(marks: Mapping[tuple[str, str], int], tenant: str, service: str) -> int:
    """The time (µs) before which the rows of a service are gone; 0 if nothing is."""
    own = marks.get((tenant, service))
    return marks.get((tenant, ""), 0) if own is None else own


def below(state: ClusterState, entry: EntryHeader) -> bool:
    """Whether all rows that an entry may hold are under committed watermarks."""
    marks = state.watermarks
    if entry.sequenced:
        return entry.max_ts < hidden_before(marks, entry.tenant, entry.service)
    if (entry.tenant, "") not in marks:
        return False
    floor = min(mark for (tenant, _), mark in marks.items() if tenant == entry.tenant)
    return entry.max_ts < floor


def may_lack(state: ClusterState, node: str, entry: EntryHeader) -> bool:
    """Whether a store need not hold an entry that it held: it is no owner, or all rows are hidden."""
    return not owns(state, entry.shard, node) or below(state, entry)


class Removals:
    """I13: what a store holds no more it was allowed to let go of. Looks at each store again and again."""

    def __init__(
        self,
        log: SimLog,
        nodes: dict[str, SimNode],
        broken: list[tuple[str, str]],
        counts: Counter[str],
    ) -> None:
        """`counts`: gets how many entries were removed, and why."""
        self._log, self._nodes, self._broken, self._counts = log, nodes, broken, counts
        #: By node: its life, the index of the log then, blocks set aside, entries held.
        self._seen: dict[str, tuple[int, int, int, dict[bytes, EntryHeader]]] = {}
        #: By node: the indexes that it knew at the last looks of its life.
        self._known: dict[str, deque[int]] = {}

    async def run(self) -> None:
        """For ever."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Compares what each store holds with what it held."""
        index = len(self._log.states) - 1
        for id, node in self._nodes.items():
            if not node.up:
                continue
            aside = node.storage.blocks_set_aside
            held = node.known()
            seen = self._seen.get(id)
            if seen is not None and (seen[0], seen[2]) == (node.life, aside):
                for entry_id in seen[3].keys() - held.keys():
                    self._judge(id, seen[1], seen[3][entry_id])
                self._judge_new(node, [held[one] for one in held.keys() - seen[3].keys()])
            else:
                self._known[id] = deque(maxlen=LOOKS)
            if node.steering.registered:  # from then on its store is told
                self._known[id].append(node.applied)
            self._seen[id] = node.life, index, aside, held

    def _judge_new(self, node: SimNode, entries: list[EntryHeader]) -> None:
        """I7: what a store has known for a while to be an hour and more below the watermark does not come in.

        A producer's rows do, as their sequences must be acknowledged; they are removed again.
        """
        known = self._known[node.id]
        if len(known) < LOOKS:
            return
        state = self._log.states[known[0]]
        for entry in entries:
            late = replace(entry, max_ts=entry.max_ts + HOUR)
            if not entry.sequenced and below(state, late):
                text = f"{node.id} took an entry of {entry.service} that is below the watermark"
                self._broken.append(("I7", text))

    def _judge(self, node: str, since: int, entry: EntryHeader) -> None:
        states = self._log.states[since:]
        if below(states[-1], entry):
            self._counts["entries expired"] += 1
            return
        free = any(one.change is None and not owns(one, entry.shard, node) for one in states)
        self._counts["entries let go"] += free
        disk = self._nodes[node].disk
        ids = {bytes(e.entry_id) for one in disk.written if one.rotten for e in one.entries}
        if not free and bytes(entry.entry_id) not in ids:
            what = entry.producer or entry.service
            text = f"{node} removed an entry of {what}, shard {entry.shard}, that it must keep"
            self._broken.append(("I13", text))
