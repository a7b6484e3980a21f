"""`/cluster*`, `/health`, `/ready`, `/metrics`: who is there, who leads, who owns what, since when.

Any node answers, from its own copy of the replicated state; storage figures are asked of the nodes
themselves, under a short deadline, and a node that does not answer is shown so.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from cluster.consensus import Consensus
from cluster.events import EventLog
from cluster.http_front import json_response
from cluster.membership import Membership
from cluster.state_codec import ring_hash
from cluster.state_types import Member
from cluster.transport import Transport
from cluster.view import ViewSource
from records.errors import InvalidRequest, QuorumlogError, TooLarge
from ring.serde import to_dict
from runtime.clock import Clock
from runtime.deadline import Deadline
from runtime.metrics import CONTENT_TYPE, Metrics

#: Seconds to wait for a node's own figures.
STATUS_SECONDS = 1.0
#: Bytes of a JSON body that asks for a change.
BODY_MAX_BYTES = 64 << 10
VERSION = "0.1.0"


@dataclass(frozen=True, slots=True)
class ClusterApi:
    """The handlers and what they read from. `not_ready` names what is missing, empty when ready."""

    views: ViewSource
    consensus: Consensus
    membership: Membership
    transport: Transport
    events: EventLog
    metrics: Metrics
    clock: Clock
    not_ready: Callable[[], list[str]]
    local_status: Callable[[], dict[str, Any]]

    def routes(self) -> list[web.RouteDef]:
        """All routes of this module."""
        return [
            web.get("/health", self.health),
            web.get("/ready", self.ready),
            web.get("/metrics", self.prometheus),
            web.get("/cluster", self.cluster),
            web.get("/cluster/leader", self.leader),
            web.get("/cluster/nodes", self.nodes),
            web.get("/cluster/ring", self.ring),
            web.get("/cluster/shards", self.shards),
            web.get("/cluster/events", self.list_events),
            web.get("/cluster/control", self.control),
        ]

    async def health(self, _: web.Request) -> web.Response:
        """Alive: the event loop answers."""
        me = self.membership.me
        body = {
            "status": "ok",
            "node": me.id,
            "roles": list(me.roles),
            "incarnation": me.incarnation,
            "version": VERSION,
            "time_micros": self.clock.wall_micros(),
        }
        return json_response(body)

    async def ready(self, _: web.Request) -> web.Response:
        """Serves: 200, or 503 with what is missing."""
        missing = self.not_ready()
        status = 503 if missing else 200
        headers = {"Retry-After": "1"} if missing else None
        return json_response({"ready": not missing, "waiting_for": missing}, status, headers)

    async def prometheus(self, request: web.Request) -> web.Response:
        """Prometheus's text, or a flat JSON snapshot if the client accepts JSON."""
        if "application/json" in request.headers.get("Accept", ""):
            return json_response(self.metrics.snapshot())
        return web.Response(body=self.metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})

    async def cluster(self, _: web.Request) -> web.Response:
        """The whole in brief."""
        view = self.views.current()
        state = view.state
        body = {
            "cluster_id": state.cluster_id,
            "node": view.node_id,
            "raft_leader": self.consensus.leader_hint(),
            "applied_index": state.applied_index,
            "cluster_epoch": state.cluster_epoch,
            "ring_epoch": state.ring_epoch,
            "shard_count": state.shard_count,
            "quorum": {"n": view.quorum.n, "w": view.quorum.w, "r": view.quorum.r},
            "nodes": await self._nodes(),
            "shards_without_leader": [s for s in range(state.shard_count) if not view.leader(s)],
            "consensus": self.consensus.status(),
        }
        return json_response(body)

    async def leader(self, _: web.Request) -> web.Response:
        """The Raft leader, as this node believes."""
        node = self.consensus.leader_hint()
        member = self.views.current().member(node) if node else None
        return json_response({"node": node, "http": member.http if member else None})

    async def nodes(self, _: web.Request) -> web.Response:
        """Every member, with its own figures."""
        return json_response({"nodes": await self._nodes()})

    async def _nodes(self) -> list[dict[str, Any]]:
        view = self.views.current()
        members = [member for _, member in sorted(view.state.members.items())]
        figures = await asyncio.gather(*(self._figures(member) for member in members))
        leads = {member.id: len(view.state.shards_of(member.id)) for member in members}
        return [
            {
                "id": member.id,
                "roles": list(member.roles),
                "incarnation": member.incarnation,
                "http": member.http,
                "peer": member.peer,
                "raft": member.raft,
                "zone": member.zone,
                "weight": member.weight,
                "alive": view.is_alive(member.id),
                "leads": leads[member.id],
                "owns": len(view.ring.shards_of(member.id)) if view.ring else 0,
                **found,
            }
            for member, found in zip(members, figures, strict=True)
        ]

    async def _figures(self, member: Member) -> dict[str, Any]:
        if member.id == self.membership.me.id:
            return {"status": self.local_status()}
        deadline = Deadline.after(self.clock, STATUS_SECONDS)
        try:
            head, _ = await self.transport.call(member.id, "status", {}, b"", deadline)
        except QuorumlogError as error:
            return {"status": None, "error": error.message}
        return {"status": head["status"]}

    async def ring(self, _: web.Request) -> web.Response:
        """The ring as it was committed."""
        view = self.views.current()
        return json_response(
            {"ring_epoch": view.ring_epoch, "ring": to_dict(view.ring) if view.ring else None}
        )

    async def shards(self, _: web.Request) -> web.Response:
        """Each shard's owners and leader."""
        view = self.views.current()
        rows = []
        for shard in range(view.shard_count):
            leader = view.leader(shard)
            rows.append(
                {
                    "shard": shard,
                    "owners": list(view.owners(shard)),
                    "writes_to": [list(group) for group in view.write_groups(shard)],
                    "leader": leader[0] if leader else None,
                    "shard_epoch": leader[1] if leader else 0,
                }
            )
        return json_response({"ring_epoch": view.ring_epoch, "shards": rows})

    async def control(self, _: web.Request) -> web.Response:
        """How far this node has come in the one history of commands, and what it makes of it.

        All of one moment. `history` hashes every command up to `applied_index`, `ring_hash` what the ring
        epoch stands for: two nodes that tell the same index, or the same epoch, must tell the same hash.
        """
        state = self.consensus.snapshot()
        body = {
            "node": self.membership.me.id,
            "applied_index": state.applied_index,
            "history": state.history.hex(),
            "ring_epoch": state.ring_epoch,
            "ring_hash": ring_hash(state).hex(),
            "cluster_epoch": state.cluster_epoch,
            "quorum": state.quorum._asdict(),
        }
        return json_response(body)

    async def list_events(self, _: web.Request) -> web.Response:
        """The changes this node saw, oldest first."""
        return json_response({"events": self.events.listed()})


async def json_body(request: web.Request) -> dict[str, Any]:
    """The JSON object in a small body.

    Raises:
        InvalidRequest: it is none.
        TooLarge: it is longer than BODY_MAX_BYTES.
    """
    parts, size = [], 0
    async for piece in request.content.iter_chunked(1 << 14):
        parts.append(piece)
        size += len(piece)
        if size > BODY_MAX_BYTES:
            raise TooLarge(f"the body has at most {BODY_MAX_BYTES} bytes")
    try:
        body = json.loads(b"".join(parts))
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise InvalidRequest("the body is a JSON object")
    return body


def status_operation(local_status: Callable[[], dict[str, Any]]) -> Any:
    """The peer operation behind `_figures`."""

    async def status(_: dict[str, Any], __: memoryview, ___: Deadline) -> Any:
        return {"status": local_status()}, b""

    return status
