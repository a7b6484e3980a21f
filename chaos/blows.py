"""Whom a fault struck and how, and which quorum was in force when, as the proofs of faults tell. Pure.

A fault of a node names it as its target. A fault amid a change of the ring names a role, and its proof says
who that was: `blows`, pairs of (trouble, node). `quorums` are the changes of N, W and R that it asked for,
also if it did not bite: {"before": [n, w, r], "after": [n, w, r], "asked_at", "ended_at"}, ns of the
history's clock.
"""

from collections.abc import Iterable
from typing import NamedTuple

from chaos.acks import NEVER
from chaos.history import AT_REST, CUTS, FaultRecord


class Floor(NamedTuple):
    """N, W and R, or the least of each that may be in force."""

    n: int
    w: int
    r: int


def at_rest(fault: FaultRecord) -> set[str]:
    """Nodes that surely do nothing from the bite to the heal. (Behind a broken link a node works on.)"""
    if fault.what in AT_REST:
        return set(fault.targets)
    return _struck(fault, "kill", "pause")


def cut_off(fault: FaultRecord) -> set[str]:
    """Nodes on one side of a cut, from the bite to the heal; clients reach them all."""
    return set(fault.targets) if fault.what in CUTS else _struck(fault, "cut")


def touched(fault: FaultRecord) -> set[str]:
    """Nodes that a fault broke, or whose links it broke."""
    struck = _struck(fault, "kill", "pause", "cut")
    return struck or set(fault.targets)


def _struck(fault: FaultRecord, *troubles: str) -> set[str]:
    return {node for trouble, node in fault.proof.get("blows", ()) if trouble in troubles}


def quorums_of(first: Floor, faults: Iterable[FaultRecord]) -> list[tuple[Floor, int, int]]:
    """Each quorum with the times from and until which it may be in force: from when it was asked for, until
    the next one is known to be in force alone.

    While a change runs W and R are the greater of before and after, so neither bound is too high.
    """
    asked = [one for fault in faults for one in fault.proof.get("quorums", ())]
    asked.sort(key=lambda one: one["asked_at"])
    found: list[tuple[Floor, int, int]] = []
    now, since = first, 0
    for one in asked:
        ended = NEVER if one.get("ended_at") is None else one["ended_at"]
        found.append((now, since, ended))
        now, since = Floor(*one["after"]), one["asked_at"]
    return [*found, (now, since, NEVER)]
