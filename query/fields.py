"""`/query/fields`: which fields rows have, found in a sample of the newest matching rows. Pure.

A replica has no list of its fields: blocks differ. So the newest rows are looked at; their counts are of
the sample, which the answer says, unless exact counts are asked for (one fold over all matching rows).
"""

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pyarrow as pa

from query.encode import ATTRIBUTES
from query.plan import Pairs, Parameters, QueryPlan, plan_filters
from records.columns import NUMBER_COLUMN, RUN_COLUMN
from records.ids import DEFAULT_TENANT
from records.predicates import Aggregate, Fold

SAMPLE_ROWS, SAMPLE_MAX = 10_000, 50_000
#: Fields counted exactly in one fold; rarer ones keep the sample's count.
EXACT_MAX = 100
_HIDDEN = (NUMBER_COLUMN, RUN_COLUMN, ATTRIBUTES, "timestamp_ns")


def plan_fields(
    pairs: Pairs, now_micros: int, tenant: str = DEFAULT_TENANT
) -> tuple[QueryPlan, bool]:
    """(the plan of the sample, whether exact counts are wanted)."""
    params = Parameters.of(pairs, "sample", "exact")
    limit = params.whole("sample", SAMPLE_ROWS, 1, SAMPLE_MAX)
    exact = (params.one("exact") or "false").lower() in ("1", "true", "yes")
    plan = plan_filters(params, now_micros, tenant)
    return replace(plan, scan=replace(plan.scan, limit=limit)), exact


def sampled_fields(table: pa.Table) -> list[dict[str, Any]]:
    """name, type and rows of each field in the sample, most frequent first."""
    found: dict[str, dict[str, Any]] = {}
    for field in table.schema:
        rows = table.num_rows - table[field.name].null_count
        if field.name not in _HIDDEN and rows:
            found[field.name] = {"name": field.name, "type": _type_name(field.type), "rows": rows}
    if ATTRIBUTES in table.column_names:
        for name, (kind, rows) in _attribute_fields(table[ATTRIBUTES].to_pylist()).items():
            known = found.setdefault(name, {"name": name, "type": kind, "rows": 0})
            known["rows"] += rows
            known["type"] = known["type"] if known["type"] == kind else "mixed"
    return sorted(found.values(), key=lambda one: (-one["rows"], one["name"]))


def _type_name(kind: pa.DataType) -> str:
    if pa.types.is_timestamp(kind):
        return "time"
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_floating(kind):
        return "number"
    return "boolean" if pa.types.is_boolean(kind) else "text"


def _attribute_fields(texts: list[str | None]) -> dict[str, tuple[str, int]]:
    """Type and count of each key; the sample is bounded, so a loop over it is, too."""
    counts: Counter[str] = Counter()
    kinds: dict[str, set[str]] = {}
    for text in texts:
        for name, value in (json.loads(text) if text else {}).items():
            if value is not None:
                counts[name] += 1
                kinds.setdefault(name, set()).add(_json_type(value))
    return {n: (k.pop() if len(k) == 1 else "mixed", counts[n]) for n, k in kinds.items()}


def _json_type(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "integer" if isinstance(value, int) else "number"
    return "text" if isinstance(value, str) else "object"


def plan_exact(plan: QueryPlan, names: list[str]) -> QueryPlan:
    """One fold that counts all matching rows, and those with each field."""
    counts = [Aggregate(f"field:{name}", "count", name) for name in names[:EXACT_MAX]]
    fold = Fold((), (Aggregate("rows", "count"), *counts))
    return replace(plan, scan=replace(plan.scan, fold=fold, limit=0))
