"""`/cluster/moves`, `/cluster/nodes/{id}/...`, `/cluster/settings`: changing the ring, and watching it.

Any node answers: a change is a command to Raft, compare-and-set on the ring epoch. `?dry_run=1` tells what
would move and changes nothing. A second change is refused with CHANGE_RUNNING until the first has ended.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from cluster.cluster_http import json_body
from cluster.consensus import Consensus
from cluster.http_front import json_response
from cluster.rebalance import RebalanceSettings, progress
from cluster.rebalance_plan import (
    Command,
    begin,
    ring_drained,
    ring_even,
    ring_replicated,
    ring_with,
    ring_without,
)
from cluster.state_moves import BYTES_PER_SECOND_MAX, PARALLEL_MAX, REPLICAS_MAX
from cluster.state_types import ClusterState, Quorum
from records.errors import InvalidRequest
from ring.delta import RingDelta
from ring.ring import Ring
from ring.serde import from_dict

ACTIONS = ("add", "drain", "remove", "replace")
_BOUNDS = ("parallel", "bytes_per_second")
_QUORUM = ("n", "w", "r")
#: The numbers that a body may have, and their bounds: told here, so by a dry run too.
_NUMBERS = {
    "parallel": (1, PARALLEL_MAX),
    "bytes_per_second": (0, BYTES_PER_SECOND_MAX),
    **dict.fromkeys(_QUORUM, (1, REPLICAS_MAX)),
}


@dataclass(frozen=True, slots=True)
class MovesApi:
    """The handlers. `figures` are those of the Raft leader's copies, {} if it cannot be asked."""

    consensus: Consensus
    settings: RebalanceSettings
    figures: Callable[[], Awaitable[dict[str, Any]]]

    def routes(self) -> list[web.RouteDef]:
        """All routes of this module."""
        return [
            web.get("/cluster/moves", self.moves),
            web.post("/cluster/moves/abort", self.abort),
            web.post("/cluster/rebalance", self.rebalance),
            web.post("/cluster/nodes/{id}/{action}", self.node),
            web.post("/cluster/settings", self.quorum),
        ]

    async def moves(self, _: web.Request) -> web.Response:
        """The change under way: what moves, what is left, what was copied."""
        state = self.consensus.snapshot()
        change = progress(state)
        figures = await self.figures() if change else {}
        body = {"ring_epoch": state.ring_epoch, "change": change or None, "figures": figures}
        return json_response(body)

    async def abort(self, _: web.Request) -> web.Response:
        """Goes no further; shards that have moved stay where they are."""
        state = await self.consensus.barrier()
        if state.change is None:
            raise InvalidRequest("no change of the ring is running")
        await self.consensus.propose("AbortChange", {"id": state.change.id})
        return json_response({"aborting": state.change.id})

    async def rebalance(self, request: web.Request) -> web.Response:
        """Spreads the shards anew over the ring's members, with the fewest moves."""
        body = await _body(request, _BOUNDS)
        state = await self.consensus.barrier()
        return await self._change(request, state, ring_even(state), "rebalance", body)

    async def node(self, request: web.Request) -> web.Response:
        """Adds, drains, removes or replaces (`{"with": id}`) a storage node."""
        node, action = request.match_info["id"], request.match_info["action"]
        if action not in ACTIONS:
            raise InvalidRequest(f"{action!r} is not one of {', '.join(ACTIONS)}")
        body = await _body(request, (*_BOUNDS, "with"))
        instead = body.pop("with", "")
        if not isinstance(instead, str) or bool(instead) != (action == "replace"):
            raise InvalidRequest('"with" names the node that takes the place, for replace alone')
        state = await self.consensus.barrier()
        if action == "add":
            ring = ring_with(state, node)
        elif action == "drain":
            ring = ring_drained(state, node)
        else:
            ring = ring_without(state, node, instead)
        if action in ("remove", "replace"):
            body["retire"] = _retiring(state, node)
        reason = f"{action} {node}" + (f" with {instead}" if instead else "")
        return await self._change(request, state, ring, reason, body)

    async def quorum(self, request: web.Request) -> web.Response:
        """Changes N, W and R (`{"n": 3, "w": 2, "r": 2}`): at once, or by a change of the ring."""
        body = await _body(request, (*_BOUNDS, *_QUORUM))
        given = {name: body.pop(name) for name in _QUORUM if name in body}
        if not given:
            raise InvalidRequest('the body is an object with whole numbers "n", "w" and/or "r"')
        state = await self.consensus.barrier()
        wanted = Quorum(**{**state.quorum._asdict(), **given})
        answer = {"quorum": wanted._asdict()}
        if _meets(state, wanted):
            args = {"expected_cluster_epoch": state.cluster_epoch, **wanted._asdict()}
            await self.consensus.propose("SetQuorum", args)
            return json_response(answer)
        if wanted.n == state.quorum.n and state.ring is not None:
            ring = from_dict(state.ring)
        else:
            ring = ring_replicated(state, wanted.n)
        reason = f"quorum n={wanted.n} w={wanted.w} r={wanted.r}"
        body["quorum"] = list(wanted)
        return await self._change(request, state, ring, reason, body, answer)

    async def _change(
        self,
        request: web.Request,
        state: ClusterState,
        ring: Ring,
        reason: str,
        body: Mapping[str, Any],
        answer: Mapping[str, Any] | None = None,
    ) -> web.Response:
        bounds = {name: getattr(self.settings, name) for name in _BOUNDS}
        command: Command = begin(state, ring, reason, **{**bounds, **body})
        n = (answer or {}).get("quorum", state.quorum._asdict())["n"]
        told = {**(answer or {}), "reason": reason, "n": n, **preview(state, ring)}
        if request.query.get("dry_run", "0") not in ("0", "false"):
            return json_response({**told, "dry_run": True})
        number = await self.consensus.propose(command.op, command.args)
        return json_response({**told, "change": number}, 202)


def _retiring(state: ClusterState, node: str) -> str:
    """The node if it leaves for good; a manager stays a member, as Raft's group is in the settings."""
    member = state.members.get(node)
    return node if member is not None and not member.raft else ""


def _meets(state: ClusterState, wanted: Quorum) -> bool:
    """Whether SetQuorum takes it as it is: old writes meet new reads, and the reverse.

    Stricter than the command: a greater R is a change of the ring, which waits until readers must hear of it.
    """
    return (
        wanted.n == state.quorum.n
        and wanted.r <= state.read_by
        and wanted.r + state.acked_on > wanted.n
        and wanted.w + state.quorum.r > wanted.n
    )


def preview(state: ClusterState, ring: Ring) -> dict[str, Any]:
    """What would move: replicas copied, by node gained and lost; the fewest owners of a shard then."""
    assert state.ring is not None
    delta = RingDelta.between(from_dict(state.ring), ring)
    return {
        "copies": delta.copies,
        "rounds": len(delta.rounds()),
        "gains": delta.gains(),
        "losses": delta.losses(),
        "fewest_owners": min(len(owners) for owners in ring.table),
    }


async def _body(request: web.Request, known: tuple[str, ...]) -> dict[str, Any]:
    """The JSON object of a request; an empty body is {}.

    Raises:
        InvalidRequest: not an object, a key that is not known, or a number out of its bounds.
        TooLarge: longer than any change is.
    """
    body = await json_body(request) if request.can_read_body else {}
    if odd := set(body) - set(known):
        raise InvalidRequest(f"{min(odd)!r:.80} is not known here; known: {', '.join(known)}")
    for name in _NUMBERS.keys() & body:
        (low, high), value = _NUMBERS[name], body[name]
        if type(value) is not int or not low <= value <= high:
            text = f"{name}: a whole number from {low} to {high}, not {value!r:.40}"
            raise InvalidRequest(text, parameter=name)
    return body
