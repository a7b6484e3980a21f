"""What the simulated clients allow reads in pages, and no more (docs/consistency.md, "Pages")."""

from types import SimpleNamespace
from typing import Any

import pytest

from chaos.history import APPEND, OK, UNKNOWN, Op
from chaos.sim.clock import WALL_MICROS
from chaos.sim.repeats import renamed, two_of_one
from records.visibility import REPEAT_MICROS

#: Nanoseconds of virtual time at which the first dedupe window ends.
EDGE = (REPEAT_MICROS - WALL_MICROS % REPEAT_MICROS) * 1000
SECOND = 1_000_000_000


def traffic(*sendings: tuple[int, str], skew: float = 0.0) -> Any:
    """Rows 4 to 7 of an agent, sent at these times with these outcomes, each answered a tenth later."""
    ops = [
        Op(n, "agent0", APPEND, "a", at, at + SECOND // 10, outcome, ((4, 7),), "")
        for n, (at, outcome) in enumerate(sendings)
    ]
    nodes = {"a": SimpleNamespace(clock=SimpleNamespace(skew=skew))}
    return SimpleNamespace(ops=ops, nodes=nodes, numbered=["p0"], now=lambda: 9 * SECOND)


@pytest.mark.parametrize(
    ("sendings", "skew", "allowed"),
    [
        (((EDGE - SECOND, UNKNOWN), (EDGE + SECOND, OK)), 0.0, {"complete", "partial"}),
        (((EDGE - SECOND, OK), (EDGE + SECOND, OK)), 0.0, {"partial"}),
        (((EDGE - 2 * SECOND, UNKNOWN), (EDGE - SECOND, OK)), 0.0, set()),
        (((EDGE - 2 * SECOND, UNKNOWN), (EDGE - SECOND, OK)), 2.0, {"complete", "partial"}),
    ],
)
def test_a_row_comes_under_two_names_only_beyond_the_edge_of_a_window(
    sendings: tuple[tuple[int, str], ...], skew: float, allowed: set[str]
) -> None:
    """In complete pages only if its first try had no acknowledgement. Within one window it has one name."""
    sent = traffic(*sendings, skew=skew)
    found = {
        kind
        for kind, complete in (("complete", True), ("partial", False))
        if renamed(sent, "agent0:5", complete)
    }

    assert found == allowed
    assert two_of_one(sent) == ("complete" in allowed)
    assert not renamed(sent, "agent0:8", complete=False)
    assert not renamed(sent, "p0:5", complete=False)
