"""Reading: what a read brought, and what it lacks, named by shard, hours and reason. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from query.scatter import Scattered
from query.settle import ReadAgain, Settled
from query.times import rfc3339
from records.messages import ScanReply
from records.timestamps import MICROS_PER_HOUR, TimeRange


@dataclass(slots=True)
class Reading:
    """What one read of some shards brought, before it is merged."""

    tables: list[pa.Table] = field(default_factory=list)
    missing: list[dict[str, Any]] = field(default_factory=list)
    stats: dict[str, Any] = field(default_factory=dict)
    received_max: int = 0
    truncated: bool = False
    #: Rows of the shortest answer that was cut.
    fitting: int = 0


def joined(readings: Sequence[Reading]) -> Reading:
    """Slices of one range, in the order of time, as one reading; a shard is missing once, for all hours."""
    if len(readings) == 1:
        return readings[0]
    missing: dict[int, list[dict[str, Any]]] = {}
    for one in readings:
        for lack in one.missing:
            missing.setdefault(lack["shard"], []).append(lack)
    return Reading(
        [table for one in readings for table in one.tables],
        [_missing_once(shard, lacks) for shard, lacks in sorted(missing.items())],
        {name: sum(one.stats[name] for one in readings) for name in readings[0].stats},
        max(one.received_max for one in readings),
        any(one.truncated for one in readings),
        min((one.fitting for one in readings if one.truncated), default=0),
    )


def _missing_once(shard: int, lacks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """From the first hour that lacks to the last, where all are known; each reason once."""
    reasons = dict.fromkeys(lack["reason"] for lack in lacks)
    named: dict[str, Any] = {"shard": shard, "reason": "; ".join(reasons)}
    if all("hours" in lack for lack in lacks):
        first, last = lacks[0]["hours"]["first"], lacks[-1]["hours"]["last"]
        named["hours"] = {"first": first, "last": last}
    return named


def ambiguous(settled: Sequence[Settled]) -> bool:
    """Whether owners of several slices may see otherwise which of two copies of a row is hidden.

    A row without a time of its own has that of its receipt, so two copies may lie in two slices: each
    owner shows one of them, but owners with an entry in blocks of another age may show the other.
    """
    return len(settled) > 1 and any(
        any(reply.overlaps for reply in one.replies)
        or any(known.overlaps or known.wanted_hide for known in one.comparisons.values())
        for one in settled
    )


def unsettled(found: Scattered, differing: Sequence[int], again: ReadAgain) -> Settled:
    """The answer when owners failed faster than they could be compared: all we have, and said so."""
    settled = Settled([part.table for part in found.parts], [part.reply for part in found.parts])
    for shard in differing:
        settled.incomplete[shard] = f"owners differ, and while they were compared {again}"
    return settled


def reading_of(
    found: Scattered, settled: Settled, needed: dict[int, int], time: TimeRange
) -> Reading:
    replies, base = settled.replies, found.base
    pairs = zip(settled.tables, replies, strict=True)
    reasons: dict[int, str] = {}
    for shard, count in needed.items():
        if shard not in base:
            reasons[shard] = f"none of its owners gave its rows ({_failures(found)})"
        elif reason := _too_few(found, shard, count):
            reasons[shard] = reason
    reasons |= settled.incomplete
    return Reading(
        settled.tables,
        [_missing(shard, reason, time) for shard, reason in sorted(reasons.items())],
        _stats(replies, settled),
        max([found.received_max, *(reply.received_max for reply in replies)]),
        any(reply.truncated for reply in replies),
        min((table.num_rows for table, one in pairs if one.truncated), default=0),
    )


def unheard(found: Scattered, needed: dict[int, int], time: TimeRange) -> list[dict[str, Any]]:
    """The shards for which fewer owners spoke than `needed` says, as they are missing."""
    return [
        _missing(shard, reason, time)
        for shard, count in sorted(needed.items())
        if (reason := _too_few(found, shard, count))
    ]


def _too_few(found: Scattered, shard: int, count: int) -> str:
    """Why it does not count what the owners of a shard said; empty if it does."""
    if (whole := found.counted(shard)) >= count:
        return ""
    damaged = sorted(found.holes.get(shard, ()))
    reason = f"{whole + len(damaged)} of {count} owners answered ({_failures(found)})"
    if damaged:
        reason += f", of which damage took rows of {', '.join(damaged)}, not all back yet"
    return reason


def _failures(found: Scattered) -> str:
    return (
        ", ".join(f"{n}: {code}" for n, code in sorted(found.failures.items())) or "no more owners"
    )


def _stats(replies: Sequence[ScanReply], settled: Settled) -> dict[str, Any]:
    return {
        "rows_scanned": sum(reply.rows_scanned for reply in replies),
        "blocks_scanned": sum(reply.blocks_scanned for reply in replies),
        "blocks_pruned": sum(reply.blocks_pruned for reply in replies),
        "elapsed_ms": 0.0,
        "repaired": settled.supplemented,
    }


def _missing(shard: int, reason: str, time: TimeRange) -> dict[str, Any]:
    named: dict[str, Any] = {"shard": shard, "reason": reason}
    if time.bounded:
        last = max(time.start, time.end - 1)
        named["hours"] = {"first": _hour(time.start), "last": _hour(last)}
    return named


def _hour(micros: int) -> str:
    return rfc3339(micros // MICROS_PER_HOUR * MICROS_PER_HOUR)[:13]
