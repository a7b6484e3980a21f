"""Spread: cuts a dear fold into slices of time, which other owners read at the same time.

A block holds the rows of all shards of an owner set, so owners that share the shards out all open every
block; a slice of time has blocks of its own. One owner is asked for an `outline` of what it would read
(pieces with their times and rows, after all pruning). If that is much, cuts go where about equal numbers of
rows lie on each side and few rows lie in pieces on both. No good cuts, as where each block spans
all of the time: no slices. The slices of one read are settled together (see coordinator), so what
is said of a read holds for them.
"""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa

from query.limits import Latencies
from query.scatter import assign, likely
from query.settings import QuerySettings
from query.together import together
from records.errors import QuorumlogError
from records.messages import ScanRequest
from records.predicates import ScanPlan
from records.timestamps import TimeRange
from runtime.deadline import Deadline
from runtime.logs import get_logger

if TYPE_CHECKING:
    from cluster.replica_client import Replicas
    from cluster.view import ClusterView

log = get_logger(__name__)
#: Lines of one outline: 24 bytes each, and finer than any cut needs.
OUTLINE_LINES = 1_024
#: Seconds, and share of the deadline, that an outline may take; without it one owner reads all.
OUTLINE_SECONDS, OUTLINE_SHARE = 1.0, 0.1
#: How much of all rows may lie in pieces that a cut divides, as both sides read these. More spreads
#: more, and wastes more.
TWICE_MOST = 0.1


class Spreader:
    """Decides for each read into which slices it is cut."""

    def __init__(self, replicas: "Replicas", settings: QuerySettings, latencies: Latencies) -> None:
        self._replicas = replicas
        self._settings = settings
        self._latencies = latencies

    async def slices(
        self,
        view: "ClusterView",
        shards: Iterable[int],
        plan: ScanPlan,
        deadline: Deadline,
    ) -> tuple[TimeRange, ...]:
        """Disjoint ranges that make up the plan's, in order; it alone where cutting does not pay."""
        whole = (plan.time,)
        if plan.fold is None or self._settings.spread == "off":
            return whole
        avoid = self._latencies.suspects(deadline.clock.monotonic())
        data_of = assign(view, tuple(shards), 0, avoid)
        ways, owners = ways_of(view, data_of, avoid)
        if ways < 2 or (self._settings.spread == "auto" and not apart(view, owners)):
            return whole
        by_node: dict[str, list[int]] = {}
        for shard, node in data_of.items():
            by_node.setdefault(node, []).append(shard)
        limit = min(OUTLINE_SECONDS, deadline.remaining() * OUTLINE_SHARE)
        sooner = deadline.sooner(limit)
        tables = await together(
            self._outline(node, tuple(part), plan, sooner) for node, part in by_node.items()
        )
        told = [table for table in tables if table is not None]
        if len(told) < len(tables) or not told:
            return whole
        return sliced(plan.time, cuts(pa.concat_tables(told), ways, self._settings.spread_rows))

    async def _outline(
        self, node: str, shards: tuple[int, ...], plan: ScanPlan, deadline: Deadline
    ) -> pa.Table | None:
        """What `node` would read; None if it does not tell, be it that it is of an older version."""
        left = max(1, int(deadline.remaining() * 1000))
        request = ScanRequest(plan, shards, (), deadline_ms=left, outline=OUTLINE_LINES)
        try:
            reply = await deadline.wait(self._replicas.get(node).scan(request, deadline))
        except (QuorumlogError, TimeoutError) as error:
            log.warning("no outline of a read", target=node, error=error)
            return None
        return reply[1] if reply[1].column_names == ["first", "last", "rows"] else None


def ways_of(
    view: "ClusterView", data_of: Mapping[int, str], avoid: frozenset[str]
) -> tuple[int, frozenset[str]]:
    """(into how many slices a read can be cut so that owners at rest work too, all likely owners)."""
    sets = [likely(view, shard, avoid) for shard in data_of]
    owners = frozenset(node for one in sets for node in one)
    if not owners:
        return 1, owners
    return min(len(owners) // len(set(data_of.values())), min(map(len, sets))), owners


def apart(view: "ClusterView", nodes: Iterable[str]) -> bool:
    """Whether the nodes live on several hosts, by their addresses; unknown ones do not tell."""
    hosts = set()
    for node in nodes:
        member = view.member(node)
        address = (member.peer or member.http) if member else ""
        if address:
            hosts.add(urlsplit(address if "//" in address else f"//{address}").hostname)
    return len(hosts) > 1


def cuts(outline: pa.Table, ways: int, rows_min: int) -> list[int]:
    """Where to cut, ascending, at most `ways` - 1 times; nowhere if there are too few rows to read.

    For each of `ways` - 1 even shares the best first time of a piece nearby is taken: where the rows of the
    pieces that would lie on both sides, and the distance from the even share, are least.
    """
    first, last, rows = (outline[name].to_numpy() for name in ("first", "last", "rows"))
    total = int(rows.sum())
    if total < rows_min or ways < 2:
        return []
    begun, ended = np.argsort(first, kind="stable"), np.argsort(last, kind="stable")
    before = np.append(0, np.cumsum(rows[begun]))  # rows of pieces that begin before a time
    behind = np.append(0, np.cumsum(rows[ended]))  # rows of pieces that end before it
    times = np.unique(first)[1:]
    starting = before[np.searchsorted(first[begun], times)]
    ending = behind[np.searchsorted(last[ended], times)]
    divided, middle = starting - ending, (starting + ending) / 2
    found: dict[int, int] = {}
    for way in range(1, ways):
        off = np.abs(middle - total * way / ways)
        near = np.flatnonzero(off <= total / (2 * ways))
        if len(near):
            best = near[np.argmin(divided[near] + off[near] / 4)]
            found[int(times[best])] = int(divided[best])
    return sorted(found) if sum(found.values()) <= TWICE_MOST * total else []


def sliced(time: TimeRange, at: Iterable[int]) -> tuple[TimeRange, ...]:
    """The range cut at these times, which lie in it."""
    inside = sorted({one for one in at if time.start < one < time.end})
    edges = [time.start, *inside, time.end]
    return tuple(TimeRange(a, b) for a, b in pairwise(edges))
