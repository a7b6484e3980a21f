"""`POST /cluster/repair` and `GET /cluster/repair`: a full comparison of all owners now, and how far it is.

Any node answers: it tells the storage nodes to begin, or asks how far they are, each under a short deadline.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from cluster.cluster_http import json_body
from cluster.http_front import json_response
from cluster.server import Answer, Operation
from cluster.sync_loop import SyncLoop
from cluster.transport import Transport
from cluster.view import ViewSource
from records.errors import InvalidRequest, NotReady, QuorumlogError
from runtime.clock import Clock
from runtime.deadline import Deadline

#: Seconds for a node to answer.
ASK_SECONDS = 2.0


def repair_operations(loop: SyncLoop) -> dict[str, Operation]:
    """What peers may ask of a storage node's loop."""

    async def repair(head: dict[str, Any], _: memoryview, __: Deadline) -> Answer:
        return _begin(loop, head), b""

    async def repair_status(_: dict[str, Any], __: memoryview, ___: Deadline) -> Answer:
        return {"repair": loop.status()}, b""

    return {"repair": repair, "repair_status": repair_status}


def _begin(loop: SyncLoop, head: Mapping[str, Any]) -> dict[str, Any]:
    shards = None if head["shards"] is None else [int(one) for one in head["shards"]]
    accepted = loop.accept_loss(shards) if head.get("accept_loss", False) else 0
    return {"pass": loop.start_pass(shards), "accepted": accepted}


@dataclass(frozen=True, slots=True)
class RepairApi:
    """The handlers. `loop` is this node's own, if it stores."""

    node_id: str
    views: ViewSource
    transport: Transport
    clock: Clock
    loop: SyncLoop | None

    def routes(self) -> list[web.RouteDef]:
        """The routes of this module."""
        return [
            web.post("/cluster/repair", self.start),
            web.get("/cluster/repair", self.show),
        ]

    async def start(self, request: web.Request) -> web.Response:
        """Begins a pass on every storage node; `{"shard": 3}`: of this shard alone.

        `{"accept_loss": true}`: rows that damage took and no owner has are given up (SyncLoop.accept_loss).
        """
        started, failures = await self._ask_all("repair", await self._wanted(request))
        if not started:
            raise NotReady("no storage node could be told", failures=failures)
        passes = {node: head["pass"] for node, head in started.items()}
        return json_response({"started": passes, "failures": failures}, 202)

    async def show(self, _: web.Request) -> web.Response:
        """What each storage node says of its last pass, and of what it lacks."""
        told, failures = await self._ask_all("repair_status", {})
        nodes = {node: head["repair"] for node, head in told.items()}
        return json_response({"nodes": nodes, "failures": failures})

    async def _wanted(self, request: web.Request) -> dict[str, Any]:
        body = await json_body(request) if request.can_read_body else {}
        accept = body.get("accept_loss", False)
        if set(body) - {"shard", "accept_loss"} or type(accept) is not bool:
            raise InvalidRequest('the body is empty, or an object with "shard" and "accept_loss"')
        shard, count = body.get("shard"), self.views.current().shard_count
        if shard is None:
            return {"shards": None, "accept_loss": accept}
        if type(shard) is not int or not 0 <= shard < count:
            raise InvalidRequest(f"shard is a number from 0 to {count - 1}")
        return {"shards": [shard], "accept_loss": accept}

    async def _ask_all(
        self, operation: str, head: dict[str, Any]
    ) -> tuple[dict[str, Mapping[str, Any]], dict[str, str]]:
        """(answers, failures) by storage node."""
        nodes = self.views.current().storage_nodes()
        answers: dict[str, Mapping[str, Any]] = {}
        failures: dict[str, str] = {}

        async def ask(node: str) -> None:
            try:
                answers[node] = await self._ask(node, operation, head)
            except QuorumlogError as error:
                failures[node] = error.message

        await asyncio.gather(*(ask(node) for node in nodes))
        return answers, failures

    async def _ask(self, node: str, operation: str, head: dict[str, Any]) -> Mapping[str, Any]:
        if node == self.node_id and self.loop is not None:
            if operation == "repair":
                return _begin(self.loop, head)
            return {"repair": self.loop.status()}
        deadline = Deadline.after(self.clock, ASK_SECONDS)
        answer, _ = await self.transport.call(node, operation, head, b"", deadline)
        return answer
