"""GET /query/facets: the most frequent values of several fields at once, over the rows that match.

A facet is a fold by one field, as `/query/values` does it; they run side by side. `fields` names them
(default: service, level, host), `limit` how many values of each.
"""

from dataclasses import replace
from typing import Any

from aiohttp import web

from cluster.http_front import json_response
from query.coordinator import QueryAnswer, ReadCoordinator
from query.http import COMPLETE_HEADER, tenant_of, while_connected
from query.plan import Pairs, Parameters, QueryPlan, groupable, plan_filters
from query.stats import FoldPlan, present, ranked
from query.together import together
from records.errors import InvalidRequest
from records.predicates import Aggregate, Fold

DEFAULT_FIELDS = ("service", "level", "host")
FIELDS_MAX, VALUES_DEFAULT, VALUES_MAX = 10, 10, 1_000


def plan_facets(pairs: Pairs, now_micros: int, tenant: str) -> tuple[dict[str, QueryPlan], int]:
    """(a plan for each field, values of each).

    Raises:
        InvalidRequest: names the parameter.
    """
    params = Parameters.of(pairs)
    names = params.many("fields") or DEFAULT_FIELDS
    limit = params.whole("limit", VALUES_DEFAULT, 1, VALUES_MAX)
    if len(names) > FIELDS_MAX:
        raise InvalidRequest(f"fields: at most {FIELDS_MAX}", parameter="fields")
    for name in names:
        if name in ("timestamp", "count") or name.startswith("_"):
            raise InvalidRequest(f"fields: {name!r} has no facet", parameter="fields")
    groupable(names, "fields")
    plan = plan_filters(params, now_micros, tenant)
    count = (Aggregate("count", "count"),)
    plans = {
        n: replace(plan, scan=replace(plan.scan, fold=Fold((n,), count), limit=0)) for n in names
    }
    return plans, limit


class FacetsApi:
    """The handler."""

    def __init__(self, coordinator: ReadCoordinator) -> None:
        self._coordinator = coordinator

    def routes(self) -> list[web.RouteDef]:
        """The route."""
        return [web.get("/query/facets", self.facets)]

    async def facets(self, request: web.Request) -> web.StreamResponse:
        """GET /query/facets"""
        coordinator = self._coordinator
        now = coordinator.clock.wall_micros()
        plans, limit = plan_facets(request.query.items(), now, tenant_of(request))
        deadline = coordinator.deadline(next(iter(plans.values())))
        work = together(coordinator.fold(plan, deadline) for plan in plans.values())
        answers = await while_connected(request, work)
        found = [
            _facet(name, plan, answer, limit)
            for (name, plan), answer in zip(plans.items(), answers, strict=True)
        ]
        missing = {str(one): one for answer in answers for one in answer.missing}
        body = {"facets": found, "complete": not missing, "missing": list(missing.values())}
        headers = {COMPLETE_HEADER: "false" if missing else "true"}
        return json_response(body, headers=headers)


def _facet(name: str, plan: QueryPlan, answer: QueryAnswer, limit: int) -> dict[str, Any]:
    known = present(answer.table, name)
    table, cut = ranked(known, FoldPlan(plan, limit))
    total = sum(answer.table["count"].to_pylist())
    rows = zip(table[name].to_pylist(), table["count"].to_pylist(), strict=True)
    return {
        "field": name,
        "values": [{"value": value, "count": count} for value, count in rows],
        "distinct": known.num_rows,
        "cut": cut,
        "without": total - sum(known["count"].to_pylist()),
    }
