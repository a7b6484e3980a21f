"""QueryPlan: what a request asks, checked and bound: parameters in, a plan for the coordinator out. Pure.

Every error is an InvalidRequest whose text and details name the parameter. `service` (or a condition on
it in `q`) also tells which shards can hold the rows; the coordinator maps services to shards by its view.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from query import cursor as cursors
from query import language
from query.times import duration_micros, instant_micros, since_micros
from records.consistency import LEVELS
from records.errors import InvalidRequest
from records.ids import DEFAULT_TENANT
from records.predicates import Filter, ScanPlan, all_of, checked_filter
from records.timestamps import MAX_MICROS, MIN_MICROS, TimeRange

DEFAULT_LIMIT = 100
#: Rows of one JSON answer; streams have no cap. 10,000 rows are about 4 MB of JSON.
MAX_LIMIT = 10_000
MAX_TIMEOUT_SECONDS = 300.0

#: Parameters with a meaning of their own on every path (a path may add some); any other name is a
#: condition on the field of that name.
KNOWN = frozenset(
    ["service", "level", "from", "to", "since", "search", "regex", "trace_id", "q"]
) | frozenset(["limit", "cursor", "order", "consistency", "fields", "timeout", "format"])
#: Parameters that do not change which rows there are, nor their order: a cursor may meet other values.
_FREE = frozenset(("limit", "cursor", "timeout", "consistency", "format", "fields"))

#: What the scan returns whatever is asked: the time with all its digits.
_HELPERS = ("timestamp", "timestamp_ns")
Pairs = Iterable[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class QueryPlan:
    """One question. `scan.limit` counts rows of the answer, 0 means all (streams only).

    `fields`: what the caller wants to see, None for everything; `question` names it for cursors.
    `shards` restricts to these shards; None: those of `scan.services`, or all.
    """

    scan: ScanPlan
    consistency: str | None = None
    timeout_seconds: float | None = None
    fields: tuple[str, ...] | None = None
    question: bytes = bytes(8)
    shards: tuple[int, ...] | None = None


@dataclass(slots=True)
class Parameters:
    """The parameters of one request by name, in order. `known` are those that are no conditions."""

    values: dict[str, list[str]] = field(default_factory=dict)
    known: frozenset[str] = KNOWN

    @classmethod
    def of(cls, pairs: Pairs, *more: str) -> "Parameters":
        """Groups pairs by name; `more`: what this path knows besides. Blank values count as absent,
        except in conditions on fields."""
        known = KNOWN | set(more)
        grouped: dict[str, list[str]] = {}
        for name, value in pairs:
            _check_text(name, value)
            if value.strip() or name not in known:
                grouped.setdefault(name, []).append(value)
        return cls(grouped, known)

    def one(self, name: str) -> str | None:
        """The value of a parameter that may be given once."""
        found = self.values.get(name, [])
        if len(found) > 1:
            raise InvalidRequest(f"{name}: given {len(found)} times", parameter=name)
        return found[0].strip() if found else None

    def many(self, name: str) -> tuple[str, ...]:
        """The values of a parameter that is repeated, or separated by commas; distinct."""
        parts = (part.strip() for text in self.values.get(name, []) for part in text.split(","))
        return tuple(dict.fromkeys(part for part in parts if part))

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number within bounds."""
        text = self.one(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit()) or len(text) > 9 or not low <= int(text) <= high:
            raise InvalidRequest(
                f"{name}: a whole number in {low}..{high}, not {text[:40]!r}", parameter=name
            )
        return int(text)


def _check_text(name: str, value: str) -> None:
    try:
        (name + value).encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{name!a}: not valid UTF-8", parameter=ascii(name)) from error
    if not 0 < len(name) <= 256 or len(value) > 32_768:
        short = name[:40]
        raise InvalidRequest(f"{short!r}: the name or value is too long", parameter=short)


def groupable(names: Iterable[str], parameter: str) -> None:
    """Shows that fields of these names can be grouped by or aggregated: the engine reads others as patterns.

    Raises:
        InvalidRequest: tells which cannot.
    """
    for name in names:
        if "\0" in name or name == "*" or (name.startswith("^") and name.endswith("$")):
            text = f"{parameter}: a field named {name[:40]!r} can be searched for, not counted by"
            raise InvalidRequest(text, parameter=parameter)


def plan_rows(
    pairs: Pairs, now_micros: int, tenant: str = DEFAULT_TENANT, stream: bool = False
) -> QueryPlan:
    """The plan of `/query`. A stream has a limit only if it is given; its `scan.limit` is else 0.

    Raises:
        InvalidRequest: names the parameter that cannot be read.
    """
    params = Parameters.of(pairs)
    plan = plan_filters(params, now_micros, tenant)
    limit = _limit(params, stream)
    order = params.one("order") or "desc"
    if order not in ("asc", "desc"):
        raise InvalidRequest(f"order: asc or desc, not {order!r}", parameter="order")
    fields = params.many("fields") or None
    scan = replace(plan.scan, limit=limit, descending=order == "desc", fields=projection(fields))
    return _resumed(replace(plan, scan=scan, fields=fields), params)


def _limit(params: Parameters, stream: bool) -> int:
    if stream:
        return params.whole("limit", 0, 1, 999_999_999)
    return params.whole("limit", DEFAULT_LIMIT, 1, MAX_LIMIT)


def _resumed(plan: QueryPlan, params: Parameters) -> QueryPlan:
    text = params.one("cursor")
    if text is None:
        return plan
    found = cursors.decode(text, plan.question)
    scan = replace(
        plan.scan, time=found.time, after=found.after, received_until=found.received_until
    )
    return replace(plan, scan=scan)


def projection(fields: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The columns to scan for the fields asked; a replica looks in `attributes` for what is no column."""
    if fields is None:
        return None
    wanted = [name for name in fields if not name.startswith("_")]
    return tuple(dict.fromkeys((*_HELPERS, *wanted)))


def plan_filters(params: Parameters, now_micros: int, tenant: str) -> QueryPlan:
    """The part that all queries share: which rows, how surely, until when."""
    tree = _filter(params)
    consistency = params.one("consistency")
    if consistency is not None and consistency not in LEVELS:
        raise InvalidRequest(
            f"consistency: one of {', '.join(LEVELS)}, not {consistency!r}", parameter="consistency"
        )
    scan = ScanPlan(
        tenant=tenant,
        time=_time_range(params, now_micros),
        filter=tree,
        services=services_of(tree) or (),
    )
    return QueryPlan(scan, consistency, _timeout(params), question=_question(params, tenant))


def _timeout(params: Parameters) -> float | None:
    text = params.one("timeout")
    if text is None:
        return None
    try:
        seconds = (
            float(text) if text[-1] in "0123456789." else duration_micros(text, "timeout") / 1e6
        )
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= MAX_TIMEOUT_SECONDS:
        raise InvalidRequest(
            f"timeout: seconds up to {MAX_TIMEOUT_SECONDS:.0f}, or 500ms, 10s; not {text!r}",
            parameter="timeout",
        )
    return seconds


def _question(params: Parameters, tenant: str) -> bytes:
    asked = {name: found for name, found in sorted(params.values.items()) if name not in _FREE}
    return hashlib.blake2b(json.dumps([tenant, asked]).encode(), digest_size=8).digest()


def _time_range(params: Parameters, now_micros: int) -> TimeRange:
    since, start, end = params.one("since"), params.one("from"), params.one("to")
    if since is not None and start is not None:
        raise InvalidRequest("since: not together with from", parameter="since")
    low, high = MIN_MICROS, MAX_MICROS
    if since is not None:
        low = since_micros(since, now_micros)
    if start is not None:
        low = instant_micros(start, now_micros, "from")
    if end is not None:
        high = instant_micros(end, now_micros, "to")
    if low > high:
        raise InvalidRequest("from: lies after to", parameter="from")
    return TimeRange(low, high)


def _filter(params: Parameters) -> Filter:
    parts: list[Filter] = []
    for name in ("service", "level"):
        if found := params.many(name):
            parts.append(language.one_of(name, found))
    if trace := params.many("trace_id"):
        parts.append(language.one_of("trace_id", trace))
    for text in params.values.get("search", []):
        parts.extend(_search(text))
    for pattern in params.values.get("regex", []):
        parts.append(language.regex_filter("message", pattern))
    for text in params.values.get("q", []):
        parts.append(language.parse(text))
    for name, found in params.values.items():
        if name not in params.known:
            parts.append(language.one_of(name, tuple(dict.fromkeys(found))))
    flat = language.joined("and", parts) if parts else ("true",)
    return checked_filter(all_of(*flat[1:]) if flat[0] == "and" else flat)


def _search(text: str) -> list[Filter]:
    """Words all of which must occur; text in double quotes is a phrase."""
    parts: list[Filter] = []
    for index, piece in enumerate(text.split('"')):
        if index % 2 == 0:
            parts.extend(language.text_filter(word) for word in piece.split())
        elif piece:
            parts.append(("phrase", piece))
    return parts


def services_of(tree: Filter) -> tuple[str, ...] | None:
    """The services that rows matching `tree` can have; None for any.

    Only what must hold counts: `eq` and `in` on `service`, under `and` or in every branch of an `or`.
    """
    kind, *operands = tree
    if kind == "eq" and operands[0] == "service":
        return (str(operands[1]),)
    if kind == "in" and operands[0] == "service":
        return tuple(str(one) for one in operands[1])
    if kind == "and":
        known = [found for one in operands if (found := services_of(one)) is not None]
        return min(known, key=len, default=None)
    if kind == "or":
        branches = [services_of(one) for one in operands]
        if not branches or any(one is None for one in branches):
            return None
        return tuple(dict.fromkeys(name for one in branches for name in one or ()))
    return None
