"""What a watermark or a delete hides. Pure: values and rules, given by the replicated state.

* A *watermark* of a tenant and service is a time before which its rows are gone. The service "" stands for
  all services of the tenant that have none of their own. Watermarks only rise (cluster.state_ops).
* A *delete* is a predicate with an id: rows of a tenant that match it, lie in its range of time and were
  received up to its `received_until`. Rows that come later with the same contents are seen.

Rows are hidden at once, by `rules`, wherever rows are read. Their bytes go later: whole entries below the
*floor* of all services they may hold are dropped (storage.retiring), other hidden rows are blanked
(storage.erase). A floor is a function of the replicated state and of what every copy of an entry says of
itself, so all owners drop the same entries.

An entry that shows waits an hour longer than one that is hidden as a repeat: an entry and the repeat that
it hides go together, or what the repeat in turn made visible would change (records.visibility).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from records.errors import InvalidRequest
from records.predicates import TRUE, Filter, all_of, checked_filter
from records.timestamps import MAX_MICROS, MIN_MICROS, TimeRange
from records.visibility import REPEAT_MICROS
from storage.entry_table import GONE, HIDDEN_ANY, NO_PRODUCER, EntryTable


@dataclass(frozen=True, slots=True)
class Delete:
    """A delete as committed. `services` empty: of all services; `tree` holds the whole condition."""

    id: str
    tenant: str
    time: TimeRange
    received_until: int
    services: tuple[str, ...] = ()
    tree: Filter = TRUE

    def to_plain(self) -> dict[str, Any]:
        """The predicate as the replicated state keeps it."""
        return {
            "tenant": self.tenant,
            "start": self.time.start,
            "end": self.time.end,
            "received_until": self.received_until,
            "services": list(self.services),
            "filter": self.tree,
        }

    @classmethod
    def from_plain(cls, name: str, body: Mapping[str, Any]) -> "Delete":
        """The inverse.

        Raises:
            InvalidRequest: a field is missing or of the wrong shape.
        """
        try:
            time = TimeRange(int(body["start"]), int(body["end"]))
            services = tuple(str(one) for one in body["services"])
            until = int(body["received_until"])
            tree = checked_filter(body["filter"])
            return cls(name, str(body["tenant"]), time, until, services, tree)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidRequest(f"delete {name}: {error!r}") from error


@dataclass(frozen=True, slots=True)
class Rule:
    """Rows that match `tree` (times included) are hidden; the rest says where there are none.

    `name` is that of a delete, or of a watermark's key. `rising`: a watermark, whose end moves on.
    """

    name: str
    tenant: str
    time: TimeRange
    received_until: int
    services: tuple[str, ...]
    tree: Filter
    rising: bool = False

    def settled(self, max_ts: int) -> bool:
        """Whether nothing more of a block that ends at `max_ts` can come under the rule."""
        return not self.rising or max_ts < self.time.end


@dataclass(frozen=True)
class Retention:
    """All watermarks and deletes at one applied index of the replicated state."""

    index: int = 0
    marks: Mapping[tuple[str, str], int] = field(default_factory=dict)
    deletes: tuple[Delete, ...] = ()

    def mark(self, tenant: str, service: str) -> int:
        """The time before which the rows of a service are hidden."""
        own = self.marks.get((tenant, service))
        return self.marks.get((tenant, ""), MIN_MICROS) if own is None else own

    @cached_property
    def _floors(self) -> dict[str, int]:
        tenants = {tenant for tenant, service in self.marks if not service}
        return {
            one: min(mark for (tenant, _), mark in self.marks.items() if tenant == one)
            for one in tenants
        }

    def floor(self, tenant: str, service: str = "") -> int:
        """The time before which all rows of an entry are hidden; `service` "": it may hold any."""
        return self.mark(tenant, service) if service else self._floors.get(tenant, MIN_MICROS)

    def expired(self, tenant: str, service: str, max_ts: int) -> bool:
        """Whether an entry is below the watermark as a whole: gone, and not to be taken again.

        Args:
            service: of a sequenced entry; "" for others, which may hold several.
            max_ts: microseconds, of its last row.
        """
        return max_ts + REPEAT_MICROS < self.floor(tenant, service)

    def start_of(self, tenant: str, services: Sequence[str]) -> int:
        """The time before which no row of these services (of any, if empty) can be seen."""
        if not services:
            return self.floor(tenant)
        return min(self.mark(tenant, one) for one in services)

    def rules(self, tenant: str) -> tuple[Rule, ...]:
        """What hides rows of a tenant."""
        return self._rules.get(tenant, ())

    @cached_property
    def all_rules(self) -> tuple[Rule, ...]:
        """The rules of all tenants."""
        return tuple(rule for rules in self._rules.values() for rule in rules)

    @cached_property
    def _rules(self) -> dict[str, tuple[Rule, ...]]:
        found: dict[str, list[Rule]] = {}
        for (tenant, service), mark in sorted(self.marks.items()):
            own = sorted(s for t, s in self.marks if t == tenant and s)
            found.setdefault(tenant, []).append(_rule_of_mark(tenant, service, mark, own))
        for delete in self.deletes:
            found.setdefault(delete.tenant, []).append(_rule_of_delete(delete))
        return {tenant: tuple(rules) for tenant, rules in found.items()}


def _rule_of_mark(tenant: str, service: str, mark: int, own: Sequence[str]) -> Rule:
    of: Filter = TRUE
    if service:
        of = ("eq", "service", service)
    elif own:
        of = ("not", ("in", "service", tuple(own)))
    tree = all_of(of, ("range", "timestamp", None, mark))
    services = (service,) if service else ()
    time = TimeRange(MIN_MICROS, mark)
    return Rule(f"mark {tenant}/{service}", tenant, time, MAX_MICROS, services, tree, rising=True)


def _rule_of_delete(one: Delete) -> Rule:
    low = None if one.time.start <= MIN_MICROS else one.time.start
    high = None if one.time.end >= MAX_MICROS else one.time.end
    tree = all_of(
        ("range", "received_at", None, one.received_until + 1),
        ("range", "timestamp", low, high),
        *([("in", "service", one.services)] if one.services else []),
        one.tree,
    )
    return Rule(one.id, one.tenant, one.time, one.received_until, one.services, tree)


def touched(rule: Rule, table: EntryTable, rows: np.ndarray) -> np.ndarray:
    """The mask of the entries that may hold rows of the rule, present or not. A few passes over columns.

    Args:
        rows: the first rows of `table`.
    """
    tenant = table.tenants.find(rule.tenant)
    if tenant is None:
        return np.zeros(len(rows), bool)
    hit = rows["tenant"] == tenant
    hit &= (rows["min_ts"] < rule.time.end) & (rows["max_ts"] >= rule.time.start)
    return hit & (rows["received"] <= rule.received_until) & (rows["row_count"] > 0)


def floors_of(retention: Retention, table: EntryTable) -> np.ndarray:
    """The floor of each entry, by number: what it may hold before that time is hidden."""
    rows = table.rows[: table.count]
    if not retention.marks:
        return np.full(len(rows), MIN_MICROS, np.int64)
    tenants = [retention.floor(name) for name in table.tenants.values]
    floors = np.array(tenants or [MIN_MICROS], np.int64)[rows["tenant"]]
    marks = [retention.mark(key[1], key[2]) for key in table.producers.values]
    if marks:
        numbered = rows["producer"] != NO_PRODUCER
        of_producer = np.array(marks, np.int64)[np.where(numbered, rows["producer"], 0)]
        floors = np.where(numbered, of_producer, floors)
    return floors


def expired_entries(retention: Retention, table: EntryTable) -> np.ndarray:
    """Numbers of the present entries that are below their floor as a whole, ascending."""
    if not retention.marks:
        return np.zeros(0, np.int64)
    rows, floors = table.rows[: table.count], floors_of(retention, table)
    shown = (rows["flags"] & HIDDEN_ANY) == 0
    ends = rows["max_ts"] + np.where(shown, REPEAT_MICROS, 0)
    return np.flatnonzero((ends < floors) & ((rows["flags"] & GONE) == 0))
