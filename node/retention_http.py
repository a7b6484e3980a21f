"""`/cluster/retention` and `/delete`: for how long rows are kept, and what is removed before that.

The life of a delete: the question is answered once, completely (which also shows that it can be) -> every
storage node that can be reached tells the largest receive time it holds, and the latest time of a row -> the
predicate, with these as its ends, is committed by Raft -> each owner hides its rows when it has applied it,
and removes them from disk when it gets to it. `GET /delete/{id}` asks the owners how far they are.

Rows received later than that end are not touched. Every acknowledged row is on W owners, N - W + 1 of each
shard's were asked, so its receive time is not later; the clock of the asking node covers copies on owners
that were not. For the same reason no such row has a later time of its own: a delete without an end gets one,
and can be forgotten when watermarks have passed it.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from cluster.cluster_http import json_body
from cluster.consensus import Consensus
from cluster.http_front import json_response
from cluster.retention import (
    FOREVER,
    RETENTION_RULES,
    SECONDS_PER_DAY,
    retention_of,
    rules_body,
    rules_of,
    seconds_of,
)
from cluster.server import Operation
from cluster.transport import Transport
from cluster.view import ClusterView, ViewSource
from ingestor.validate import check_identifier
from query.coordinator import ReadCoordinator
from query.http import tenant_of
from query.plan import Pairs
from query.stats import plan_stats
from query.times import rfc3339
from records.errors import InvalidRequest, NotFound, NotReady, QuorumlogError
from records.ids import block_id, ulid
from records.timestamps import MAX_MICROS, MICROS_PER_SECOND, MIN_MICROS, TimeRange
from runtime.clock import Clock
from runtime.deadline import Deadline
from runtime.entropy import Entropy
from storage.service import Delete, StorageService

#: Seconds for a storage node to tell how far it is.
PROGRESS_SECONDS = 2.0
#: Seconds by which a row's receive time may be ahead of our clock and still end a delete: beyond it some
#: clock is wrong, and rows to come would be hidden.
AHEAD_SECONDS = 600
_QUESTION = frozenset(("q", "service", "from", "to"))


def progress_operation(storage: StorageService) -> dict[str, Operation]:
    """What peers ask a storage node."""

    async def progress(head: dict[str, Any], _: memoryview, __: Deadline) -> Any:
        return storage.retention_progress(str(head.get("delete", ""))), b""

    return {"retention_progress": progress}


@dataclass(frozen=True, slots=True)
class RetentionApi:
    """The handlers and what they read from. `storage`: this node's own, if it has one."""

    node_id: str
    views: ViewSource
    consensus: Consensus
    transport: Transport
    clock: Clock
    entropy: Entropy
    storage: StorageService | None
    reader: ReadCoordinator | None

    def routes(self) -> list[web.RouteDef]:
        """All routes of this module; deletes only where questions are answered."""
        always = [
            web.get("/cluster/retention", self.rules),
            web.put("/cluster/retention", self.set_rule),
            web.get("/delete", self.deletes),
            web.get("/delete/{id}", self.progress),
        ]
        return [*always, web.post("/delete", self.delete)] if self.reader else always

    # -- rules ---------------------------------------------------------------------------------

    async def rules(self, _: web.Request) -> web.Response:
        """The rules, and the watermarks that followed from them so far."""
        state = self.views.current().state
        version, rules = rules_of(state)
        keys = sorted({*rules, *state.watermarks})
        rows = [_rule_row(key, rules.get(key), state.watermarks.get(key)) for key in keys]
        return json_response({"version": version, "rules": rows})

    async def set_rule(self, request: web.Request) -> web.Response:
        """Sets, changes or drops one rule: `{"service": "api", "keep_days": 30}`."""
        body = await json_body(request)
        if set(body) - {"service", "keep_days"} or "keep_days" not in body:
            raise InvalidRequest(
                'the body is {"service": …, "keep_days": …}; service "" is all others'
            )
        service = body.get("service", "")
        if not isinstance(service, str) or len(service) > 256:
            raise InvalidRequest("service: a text of at most 256 letters", parameter="service")
        seconds = seconds_of(body["keep_days"])
        version, rules = rules_of(self.views.current().state)
        key = (check_identifier(tenant_of(request), "tenant"), service)
        rules = {name: kept for name, kept in rules.items() if name != key}
        if seconds is not None:
            rules[key] = seconds
        args = {"name": RETENTION_RULES, "expected_version": version, "body": rules_body(rules)}
        changed = await self.consensus.propose("PutSchema", args)
        return json_response({"version": changed, "rule": _rule_row(key, seconds, None)})

    # -- deletes -------------------------------------------------------------------------------

    async def delete(self, request: web.Request) -> web.Response:
        """Hides what matches `q`, `service`, `from` and `to`, and has it removed; its id and its rows."""
        assert self.reader is not None
        body = await json_body(request)
        plan = plan_stats(_pairs(body), self.clock.wall_micros(), 1, tenant_of(request))
        if not plan.query.scan.services:
            raise InvalidRequest("a delete names its services", parameter="service")
        answer = await self.reader.fold(plan.query, self.reader.deadline(plan.query))
        view = self.views.current()  # that of a complete read, or newer: all shards of the services
        if not answer.complete:
            raise NotReady("not all owners can be read now", missing=list(answer.missing))
        counted = answer.table.column("count").to_pylist() if answer.table.num_rows else [0]
        scan = plan.query.scan
        until, end, ahead = await self._ends(view, self.reader.shards(plan.query, view))
        name = ulid(block_id(self.clock.wall_micros() // 1000, self.entropy.bytes(10)))
        time = TimeRange(scan.time.start, max(scan.time.start, min(scan.time.end, end)))
        made = Delete(name, scan.tenant, time, until, scan.services, scan.filter)
        await self.consensus.propose("AddDelete", {"id": name, "predicate": made.to_plain()})
        answer = {"id": name, "state": "accepted", "rows": counted[0], "clocks_ahead": ahead}
        return json_response({**answer, "received_until": rfc3339(until)}, 202)

    async def _ends(self, view: ClusterView, shards: tuple[int, ...]) -> tuple[int, int, list[str]]:
        """(receive time up to which, time of rows before which) the delete goes, microseconds.

        And the nodes that hold rows which were received later than any good clock says: these rows stay.

        Raises:
            NotReady: too few owners of some shard answer.
        """
        told = await self._ask_all(view)
        for shard in shards:
            owners = view.owners(shard)
            wanted = max(1, len(owners) - view.state.acked_on + 1)
            if sum(node in told for node in owners) < wanted:
                raise NotReady(f"shard {shard}: {wanted} of its owners are needed for a delete")
        now = self.clock.wall_micros()
        limit = now + AHEAD_SECONDS * MICROS_PER_SECOND
        received = {node: one["received_max"] for node, one in told.items()}
        ahead = sorted(node for node, time in received.items() if time > limit)
        until = max([now, *(time for time in received.values() if time <= limit)])
        latest = [one.get("latest", MAX_MICROS) for one in told.values()]  # older nodes do not tell
        return until, min(MAX_MICROS, max([now, *latest]) + 1), ahead

    async def deletes(self, request: web.Request) -> web.Response:
        """The tenant's deletes in force."""
        tenant = tenant_of(request)
        found = [
            one for one in retention_of(self.views.current().state).deletes if one.tenant == tenant
        ]
        return json_response({"deletes": [_delete_row(one) for one in found]})

    async def progress(self, request: web.Request) -> web.Response:
        """How far each storage node is with one delete."""
        view = self.views.current()
        name = request.match_info["id"]
        made = self._delete_of(tenant_of(request), name, view)
        told = await self._ask_all(view, name)
        nodes = view.storage_nodes()
        left = {node: one["left"].get(name) for node, one in told.items()}
        hidden = [node for node in nodes if left.get(node) is not None]
        removed = [node for node in nodes if left.get(node) == 0]
        state = "removed" if len(removed) == len(nodes) else "hidden"
        if len(hidden) < len(nodes):
            state = "accepted"
        body = _delete_row(made) | {
            "state": state,
            "owners": len(nodes),
            "hidden_on": hidden,
            "removed_on": removed,
            "blocks_left": {node: count for node, count in left.items() if count},
            "not_answering": [node for node in nodes if node not in told],
        }
        return json_response(body)

    @staticmethod
    def _delete_of(tenant: str, name: str, view: ClusterView) -> Delete:
        """A tenant's delete.

        Raises:
            NotFound: it has none of this name.
        """
        if name in view.state.deletes:
            made = Delete.from_plain(name, view.state.deletes[name])
            if made.tenant == tenant:
                return made
        raise NotFound(f"no delete {name[:64]!r} is in force")

    async def _ask_all(self, view: ClusterView, delete: str = "") -> dict[str, dict[str, Any]]:
        """What each storage node that answers tells of its progress (with one delete)."""
        nodes = view.storage_nodes()
        found = await asyncio.gather(*(self._ask(node, delete) for node in nodes))
        return {node: one for node, one in zip(nodes, found, strict=True) if one is not None}

    async def _ask(self, node: str, delete: str) -> dict[str, Any] | None:
        try:
            if node == self.node_id and self.storage is not None:
                return self.storage.retention_progress(delete)
            deadline = Deadline.after(self.clock, PROGRESS_SECONDS)
            asked = {"delete": delete}
            head, _ = await self.transport.call(node, "retention_progress", asked, b"", deadline)
        except QuorumlogError:
            return None
        return head


def _pairs(body: Mapping[str, Any]) -> Pairs:
    """The delete's question as parameters of a query."""
    unknown = sorted(set(body) - _QUESTION)
    if unknown:
        raise InvalidRequest(
            f"a delete has q, service, from and to, not {unknown[0][:40]!r}",
            parameter=unknown[0][:40],
        )
    for name, value in body.items():
        if not isinstance(value, str):
            raise InvalidRequest(f"{name}: a text, not {value!r}", parameter=name)
    return [(name, str(value)) for name, value in body.items()]


def _rule_row(key: tuple[str, str], seconds: int | None, mark: int | None) -> dict[str, Any]:
    days: float | str | None = None if seconds is None else seconds / SECONDS_PER_DAY
    return {
        "tenant": key[0],
        "service": key[1],
        "keep_days": "forever" if seconds == FOREVER else days,
        "hidden_before": rfc3339(mark) if mark else None,
    }


def _delete_row(one: Delete) -> dict[str, Any]:
    start, end = one.time.start, one.time.end
    return {
        "id": one.id,
        "tenant": one.tenant,
        "services": list(one.services),
        "from": None if start <= MIN_MICROS else rfc3339(start),
        "to": None if end >= MAX_MICROS else rfc3339(end),
        "received_until": rfc3339(one.received_until),
        "filter": one.tree,
    }
