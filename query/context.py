"""GET /query/context: the rows around one row, named by its `_id`, in the order of time.

An `_id` is `<run>-<number>`; which shard the row lies in is not in it. So all storage nodes are asked for the
row's time and service; then two pages are read, back and forth from there.
Other filters narrow the rows around; without any the row's own service is meant (`service=*`: all services).
"""

import json
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from aiohttp import web

from query import encode
from query.coordinator import QueryAnswer, ReadCoordinator
from query.http import COMPLETE_HEADER, tenant_of, while_connected
from query.language import one_of
from query.plan import Pairs, Parameters, QueryPlan, plan_filters, projection, services_of
from query.together import together
from records.errors import InvalidRequest, NotFound, QuorumlogError, QuorumUnavailable
from records.ids import ID_BYTES
from records.messages import RowName, RowPlace
from records.predicates import TRUE, RowKey, all_of
from runtime.deadline import Deadline

AROUND_DEFAULT, AROUND_MAX = 10, 1_000


@dataclass(frozen=True, slots=True)
class ContextPlan:
    """What is asked: the row, how many rows to each side, the filters for them."""

    name: RowName
    before: int
    after: int
    all_services: bool
    query: QueryPlan


def plan_context(pairs: Pairs, now_micros: int, tenant: str) -> ContextPlan:
    """The plan.

    Raises:
        InvalidRequest: names the parameter.
    """
    listed = list(pairs)
    everywhere = ("service", "*") in listed
    params = Parameters.of(
        [one for one in listed if one != ("service", "*")], "id", "before", "after"
    )
    text, _, number = (params.one("id") or "").rpartition("-")
    try:
        run = bytes.fromhex(text)
    except ValueError:
        run = b""
    if len(run) != ID_BYTES or not (number.isascii() and number.isdigit()) or len(number) > 18:
        raise InvalidRequest("id: the `_id` of a row, as /query gives it", parameter="id")
    fields = params.many("fields") or None
    plan = plan_filters(params, now_micros, tenant)
    plan = replace(plan, scan=replace(plan.scan, fields=projection(fields)), fields=fields)
    before = params.whole("before", AROUND_DEFAULT, 0, AROUND_MAX)
    after = params.whole("after", AROUND_DEFAULT, 0, AROUND_MAX)
    return ContextPlan(RowName(run, int(number)), before, after, everywhere, plan)


class ContextApi:
    """The handler."""

    def __init__(self, coordinator: ReadCoordinator) -> None:
        self._coordinator = coordinator

    def routes(self) -> list[web.RouteDef]:
        """The route."""
        return [web.get("/query/context", self.context)]

    async def context(self, request: web.Request) -> web.StreamResponse:
        """GET /query/context"""
        now = self._coordinator.clock.wall_micros()
        plan = plan_context(request.query.items(), now, tenant_of(request))
        earlier, later = await while_connected(request, self._read(plan))
        text = await self._coordinator.in_worker(_body, plan, earlier, later)
        complete = earlier.complete and later.complete
        headers = {COMPLETE_HEADER: "true" if complete else "false"}
        return web.Response(text=text, content_type="application/json", headers=headers)

    async def _read(self, plan: ContextPlan) -> tuple[QueryAnswer, QueryAnswer]:
        deadline = self._coordinator.deadline(plan.query)
        place = await self._find(plan, deadline)
        scan = plan.query.scan
        tree = scan.filter
        if tree == TRUE and not plan.all_services:
            tree = all_of(one_of("service", (place.service,)))
        scan = replace(scan, filter=tree, services=services_of(tree) or ())
        key = RowKey(place.timestamp, plan.name.run, plan.name.number)
        back = replace(scan, after=key, descending=True, limit=max(1, plan.before))
        # From just before the row itself, so that it comes as the first one.
        start = replace(key, number=key.number - 1)
        forth = replace(scan, after=start, descending=False, limit=plan.after + 1)
        earlier, later = await together(
            self._coordinator.query(replace(plan.query, scan=one), deadline)
            for one in (back, forth)
        )
        return earlier, later

    async def _find(self, plan: ContextPlan, deadline: Deadline) -> RowPlace:
        """Asks all storage nodes.

        Raises:
            NotFound: none holds the row, or it is another tenant's.
            QuorumUnavailable: none that answered holds it, and some did not answer.
        """
        nodes = self._coordinator.view().storage_nodes()
        found = await together(self._ask(node, plan, deadline) for node in nodes)
        for place in found:
            if isinstance(place, RowPlace) and place.tenant == plan.query.scan.tenant:
                return place
        silent = [node for node, one in zip(nodes, found, strict=True) if one is False]
        if silent:
            raise QuorumUnavailable(
                f"the row was not found, but {', '.join(silent)} did not answer",
                retry_after_seconds=1,
            )
        raise NotFound("id: there is no such row", parameter="id")

    async def _ask(
        self, node: str, plan: ContextPlan, deadline: Deadline
    ) -> RowPlace | bool | None:
        """Where the row stands, by what one node holds; None: it has no such row; False: no answer."""
        try:
            return await self._coordinator.replicas.get(node).locate(plan.name, deadline)
        except NotFound:
            return None
        except QuorumlogError:
            return False


def _body(plan: ContextPlan, earlier: QueryAnswer, later: QueryAnswer) -> str:
    """`{"before":[…], "row":{…}, "after":[…], …}`, each in the order of time."""
    id_ = f"{plan.name.run.hex()}-{plan.name.number}"
    back = earlier.table.slice(0, plan.before)
    back = back.take(pa.array(range(back.num_rows - 1, -1, -1), pa.int64()))
    fields = plan.query.fields
    shown = encode.presented(later.table, None if fields is None else fields)
    hit = later.table.num_rows > 0 and shown[encode.ID][0].as_py() == id_
    own, rest = shown.slice(0, int(hit)), shown.slice(int(hit), plan.after)
    missing = {str(one): one for one in (*earlier.missing, *later.missing)}
    tail: dict[str, Any] = {"complete": not missing, "missing": list(missing.values())}
    row = encode.json_array(own)[1:-1] or "null"
    return (
        f'{{"before":{encode.json_array(encode.presented(back, fields))},"row":{row},'
        f'"after":{encode.json_array(rest)},{json.dumps(tail, separators=(",", ":"))[1:]}'
    )
