"""Retention in the replicated state: rules in days, and the watermarks that follow from them. Pure.

A rule says for how long the rows of a tenant's service are kept; the service "" stands for all services of
the tenant that have no rule of their own. The rules are one versioned document of the replicated state. From
them and the managers' median clock the Raft leader moves the watermarks on (cluster.retention_keeper), first
those of single services, then the default: a service that is kept longer is exempt before the default
passes it. A watermark is compare-and-set on the version of the rules that it follows from.

Deletes are in the replicated state as plain values; what both hide is storage.retention.
"""

from collections.abc import Mapping
from typing import Any

from cluster.state_ops import RETENTION_RULES
from cluster.state_types import ClusterState
from records.errors import InvalidRequest
from records.timestamps import MICROS_PER_SECOND, MIN_MICROS
from storage.service import Delete, Retention

#: Rules at most; each also makes a watermark. 1,000 take about 60 kB of the replicated state.
RULES_MAX = 1000
SECONDS_PER_DAY = 86_400
#: The longest time that can be asked for: a hundred years.
DAYS_MAX = 36_500
#: Kept for ever, though the default is not.
FOREVER = 0

#: (tenant, service) -> seconds, or FOREVER.
Rules = Mapping[tuple[str, str], int]
Mark = tuple[str, str, int]


def rules_of(state: ClusterState) -> tuple[int, dict[tuple[str, str], int]]:
    """(version, rules); version 0 if there have never been any."""
    found = state.schemas.get(RETENTION_RULES)
    if found is None:
        return 0, {}
    return found.version, {(t, s): seconds for t, s, seconds in found.body["rules"]}


def rules_body(rules: Rules) -> dict[str, Any]:
    """The document of these rules.

    Raises:
        InvalidRequest: too many.
    """
    if len(rules) > RULES_MAX:
        raise InvalidRequest(f"at most {RULES_MAX} retention rules")
    return {"rules": [[*key, seconds] for key, seconds in sorted(rules.items())]}


def seconds_of(keep_days: Any) -> int | None:
    """Seconds of a rule as a caller writes it: a number of days, "forever", or None to drop the rule.

    Raises:
        InvalidRequest: it is none of these.
    """
    if keep_days is None:
        return None
    if keep_days == "forever":
        return FOREVER
    number = isinstance(keep_days, int | float) and not isinstance(keep_days, bool)
    if not number or not 0 < keep_days <= DAYS_MAX:
        raise InvalidRequest(
            f'keep_days: days up to {DAYS_MAX}, "forever" or null, not {keep_days!r}',
            parameter="keep_days",
        )
    return max(1, round(keep_days * SECONDS_PER_DAY))


def due_marks(
    rules: Rules, marks: Mapping[tuple[str, str], int], now: int, step: int
) -> list[Mark]:
    """The watermarks to set, in order; at most one for each rule or watermark there is.

    Args:
        now: microseconds, the managers' median.
        step: microseconds; watermarks are whole multiples of it, so that they move rarely.
    """
    found: list[Mark] = []
    keys = {key for key in (*rules, *marks) if key[1]}
    defaults = {key for key in rules if not key[1]}
    for key in (*sorted(keys), *sorted(defaults)):
        seconds = rules.get(key, rules.get((key[0], "")))
        if seconds is None:
            continue
        mark = 0 if seconds == FOREVER else max(0, now - seconds * MICROS_PER_SECOND)
        mark -= mark % step
        if key not in marks or mark > marks[key]:
            found.append((*key, mark))
    return [one for one in found if one[1] or one[2]]


def retention_of(state: ClusterState) -> Retention:
    """What storage nodes hide at this state. A watermark of 0 hides nothing, nor what is from before 1970.

    Raises:
        InvalidRequest: a delete cannot be read.
    """
    deletes = tuple(
        Delete.from_plain(name, predicate) for name, predicate in sorted(state.deletes.items())
    )
    marks = {key: mark or MIN_MICROS for key, mark in state.watermarks.items()}
    return Retention(state.applied_index, marks, deletes)
