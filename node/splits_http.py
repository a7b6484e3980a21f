"""`/cluster/splits`: over how many shards each service is spread, and spreading a hot one wider.

Any node answers: a split is a command to Raft, compare-and-set on the service's generation; who loses to
another looks again. Asking for what is there already changes nothing, so an answer that was lost is asked for
again.
"""

from dataclasses import dataclass
from typing import Any

from aiohttp import web

from cluster.cluster_http import json_body
from cluster.consensus import CommandRefused, Consensus
from cluster.http_front import json_response
from cluster.state_types import ClusterState
from cluster.view import ViewSource
from ingestor.shards import FAILED_SERVICE
from ingestor.validate import check_identifier
from query.http import tenant_of
from query.times import rfc3339
from records.errors import InvalidRequest, Refused
from ring.generations import MAX_GENERATIONS, UNSPLIT, Generation
from ring.shards import shards_of_service
from runtime.clock import Clock


@dataclass(frozen=True, slots=True)
class SplitsApi:
    """The handlers."""

    views: ViewSource
    consensus: Consensus
    clock: Clock

    def routes(self) -> list[web.RouteDef]:
        """All routes of this module."""
        return [
            web.get("/cluster/splits", self.listing),
            web.post("/cluster/splits", self.split),
        ]

    async def listing(self, _: web.Request) -> web.Response:
        """The services that are split, of all tenants."""
        state = self.views.current().state
        rows = [
            _row(state, tenant, service, generations)
            for (tenant, service), generations in sorted(state.splits.items())
        ]
        return json_response({"splits": rows, "shard_count": state.shard_count})

    async def split(self, request: web.Request) -> web.Response:
        """Spreads a service of the tenant: `{"service": "api", "over": 4}`."""
        body = await json_body(request)
        over: Any = body.get("over")
        if set(body) != {"service", "over"} or type(over) is not int:
            raise InvalidRequest('the body is {"service": …, "over": a whole number}')
        tenant = check_identifier(tenant_of(request), "tenant")
        service = check_identifier(body["service"], "service")
        was, begun = 0, False
        try:
            while (
                True
            ):  # each turn but the last, another one was faster; and there are MAX_GENERATIONS
                state = await self.consensus.barrier()
                known = state.splits.get((tenant, service), UNSPLIT)
                was = was if begun else known[-1].factor
                if begun or known[-1].factor == over:
                    return json_response({**_row(state, tenant, service, known), "was": was})
                _check(state, service, over, known)
                begun = await self._propose(tenant, service, over, len(known) - 1)
        except Refused as error:
            if begun:  # it is split; only its state cannot be told now
                error.doubt()
            raise

    async def _propose(self, tenant: str, service: str, over: int, generation: int) -> bool:
        """Whether the service is split now; False: it was already, after `generation`."""
        args = {
            "tenant": tenant,
            "service": service,
            "factor": over,
            "expected_generation": generation,
            "at": self.clock.wall_micros(),
        }
        try:
            await self.consensus.propose("SplitService", args)
        except CommandRefused as error:
            if error.reason == "MISMATCH":
                return False
            raise
        return True


def _check(state: ClusterState, service: str, over: int, known: tuple[Generation, ...]) -> None:
    """Raises InvalidRequest for what cannot be, and says what can."""
    now, most = known[-1].factor, state.shard_count
    if service == FAILED_SERVICE:
        raise InvalidRequest(f"{FAILED_SERVICE} cannot be split: it holds what could not be read")
    if not 1 <= over <= most:
        raise InvalidRequest(f"over: 2 to {most} is expected, the cluster has {most} shards")
    if over < now:
        raise InvalidRequest(
            f"{service} is spread over {now} shards already: its rows are there and reads ask all of them,"
            f" so it cannot be spread over {over}"
        )
    if over > now and len(known) >= MAX_GENERATIONS:
        raise InvalidRequest(
            f"{service} was split {len(known) - 1} times; there is no further split"
        )


def _row(
    state: ClusterState, tenant: str, service: str, generations: tuple[Generation, ...]
) -> dict[str, Any]:
    factor = generations[-1].factor
    shards = shards_of_service(tenant, service, factor, state.shard_count)
    return {
        "tenant": tenant,
        "service": service,
        "over": factor,
        "generation": len(generations) - 1,
        "shards": [int(one) for one in shards],
        "history": [
            {"over": one.factor, "since": rfc3339(one.at_micros)} for one in generations[1:]
        ],
    }
