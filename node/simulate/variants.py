"""Flat tables of what a request can log: each flow whole, and broken at each of its spans. Pure.

A *slot* is one row of one variant: its service, span, text and level. If a span fails, it and each of
its callers end with an error; what would have been logged after the failure by others is absent.

`fail_share` is solved for, so that 5 % of all rows are errors: with f the share of failing requests,
E[errors] = f * Ef and E[rows] = (1 - f) * Rn + f * Rf, hence f = s * Rn / (Ef - s * (Rf - Rn)).
"""

import re
from dataclasses import dataclass
from functools import cache

import numpy as np

from node.simulate.shop import FLOWS, KINDS, SERVICES, WARNINGS, Flow

LEVELS = ("debug", "info", "warn", "error")
ERROR_SHARE = 0.05
WARN_SHARE = 0.10
_ERROR = LEVELS.index("error")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Slot:
    """One row of a variant; `text` is an index into the texts, `parent` -1 at the root."""

    service: int
    span: int
    parent: int
    text: int
    level: int
    operation: int


@dataclass(frozen=True, slots=True)
class Tables:
    """The variants as arrays. Slots of variant v are `first[v] .. first[v] + length[v]`.

    A text is head, number, middle, number, tail; `kind_a` and `kind_b` index KINDS.
    """

    first: np.ndarray
    length: np.ndarray
    flow: np.ndarray
    failed: np.ndarray
    weight: np.ndarray
    span_count: np.ndarray
    service: np.ndarray
    span: np.ndarray
    parent: np.ndarray
    text: np.ndarray
    level: np.ndarray
    operation: np.ndarray
    heads: tuple[str, ...]
    middles: tuple[str, ...]
    tails: tuple[str, ...]
    kind_a: np.ndarray
    kind_b: np.ndarray
    warnings: np.ndarray
    operations: tuple[str, ...]
    fail_share: float
    rows_per_request: float


class _Names:
    """Gives each distinct text a number."""

    def __init__(self) -> None:
        self.all: dict[str, int] = {}

    def of(self, text: str) -> int:
        return self.all.setdefault(text, len(self.all))


def _slots(flow: Flow, failing: int | None, texts: _Names, operations: _Names) -> list[Slot]:
    """The rows of a flow in order; spans nest, the last text of a span follows its callees."""
    broken: set[int] = set()
    at = -1 if failing is None else failing
    while at >= 0:
        broken.add(at)
        at = flow.spans[at].parent
    slots: list[Slot] = []
    ended = False

    def add(index: int, level: str, text: str) -> None:
        span = flow.spans[index]
        slots.append(
            Slot(
                SERVICES.index(span.service),
                index,
                span.parent,
                texts.of(text),
                LEVELS.index(level),
                operations.of(span.operation),
            )
        )

    def walk(index: int) -> None:
        nonlocal ended
        span = flow.spans[index]
        opening, closing = span.texts[:-1], span.texts[-1]
        for level, text in opening:
            add(index, level, text)
        if index == failing:
            ended = True
        for child, other in enumerate(flow.spans):
            if other.parent == index and not ended:
                walk(child)
        add(index, *(("error", span.broken) if index in broken else closing))

    walk(0)
    return slots


def _parts(texts: _Names) -> tuple[list[str], list[str], list[str], list[int], list[int]]:
    heads, middles, tails, a, b = [], [], [], [], []
    for text in texts.all:
        pieces = [*_PLACEHOLDER.split(text), "", "", "", ""][:5]
        heads.append(pieces[0])
        middles.append(pieces[2])
        tails.append(pieces[4])
        a.append(KINDS.index(pieces[1]) if pieces[1] else -1)
        b.append(KINDS.index(pieces[3]) if pieces[3] else -1)
    return heads, middles, tails, a, b


def _shares(
    weight: np.ndarray, failed: np.ndarray, rows: np.ndarray, errors: np.ndarray
) -> tuple[float, float]:
    """(share of failing requests, mean rows of a request) for the wanted share of errors."""
    whole = weight * ~failed
    whole = whole / whole.sum()
    broken = weight * failed
    broken = broken / broken.sum()
    rows_whole, rows_broken = float(whole @ rows), float(broken @ rows)
    errors_broken = float(broken @ errors)
    share = ERROR_SHARE * rows_whole / (errors_broken - ERROR_SHARE * (rows_broken - rows_whole))
    return share, (1 - share) * rows_whole + share * rows_broken


@cache
def tables() -> Tables:
    """The tables of the shop."""
    texts, operations = _Names(), _Names()
    slots: list[Slot] = []
    first, length, flow_of, failed, weight, spans, errors = [], [], [], [], [], [], []
    for number, flow in enumerate(FLOWS):
        for failing in (None, *range(len(flow.spans))):
            rows = _slots(flow, failing, texts, operations)
            first.append(len(slots))
            length.append(len(rows))
            flow_of.append(number)
            failed.append(failing is not None)
            weight.append(flow.weight if failing is None else flow.weight / len(flow.spans))
            spans.append(len(flow.spans))
            errors.append(sum(slot.level == _ERROR for slot in rows))
            slots += rows
    warnings = [texts.of(text) for text in WARNINGS]
    heads, middles, tails, kind_a, kind_b = _parts(texts)
    weights, broken = np.array(weight, float), np.array(failed)
    share, mean = _shares(weights, broken, np.array(length, float), np.array(errors, float))
    return Tables(
        first=np.array(first),
        length=np.array(length),
        flow=np.array(flow_of),
        failed=broken,
        weight=weights,
        span_count=np.array(spans),
        service=np.array([slot.service for slot in slots]),
        span=np.array([slot.span for slot in slots]),
        parent=np.array([slot.parent for slot in slots]),
        text=np.array([slot.text for slot in slots]),
        level=np.array([slot.level for slot in slots]),
        operation=np.array([slot.operation for slot in slots]),
        heads=tuple(heads),
        middles=tuple(middles),
        tails=tuple(tails),
        kind_a=np.array(kind_a),
        kind_b=np.array(kind_b),
        warnings=np.array(warnings),
        operations=tuple(operations.all),
        fail_share=share,
        rows_per_request=mean,
    )
