"""The comparison of answers, by mutants: a store that answers otherwise is named, and never timed."""

from collections.abc import Callable
from typing import Any

import pytest

from bench import goals
from bench.questions import QUESTIONS, Plain, Question

PLAN = goals.Plan({"slim": 1, "rich": 1}, rounds=2, settle_seconds=0.0)
BY_SHAPE = {one.shape: one for one in QUESTIONS}
RIGHT: dict[str, Plain] = {
    "groups": [("error", 12), ("info", 300), ("warn", 40)],
    "rows": [(1_000 - n, f"row {n}") for n in range(100)],
    "top": [(f"h{n}", 50 - n) for n in range(10)],
    "quantile": [("auth", 12.5), ("shop", 99.25)],
}


class Store:
    """A store that gives the same answer each time."""

    note = "made up"

    def __init__(self, name: str, answer: Plain | None, estimates: bool = False) -> None:
        self.name, self.answer, self.estimates = name, answer, estimates
        self.asked = 0

    def ask(self, question: Question) -> Plain | None:
        """The answer, counted."""
        self.asked += 1
        return self.answer

    def cpu_seconds(self) -> float | None:
        """Unknown."""
        return None


def compared(
    shape: str, answer: Plain | None, estimates: bool = False
) -> tuple[dict[str, Any], Store]:
    """What the benchmark makes of a peer that gives `answer` where ours is right."""
    peer = Store("peer", answer, estimates)
    ours: Any = Store("ours", RIGHT[shape])
    found = goals._ask(PLAN, BY_SHAPE[shape], [ours, peer])  # type: ignore[list-item]
    return found, peer


MUTANTS: dict[str, Callable[[Plain], Plain]] = {
    "one row less": lambda answer: answer[1:],
    "one row more": lambda answer: (
        [*answer, (*answer[0][:-1], "extra")]
        if isinstance(answer[0][-1], str)
        else [*answer, ("more", *answer[0][1:])]
    ),
    "a row twice": lambda answer: [*answer, answer[0]],
    "another name": lambda answer: [
        tuple("other" if isinstance(one, str) else one for one in answer[0]),
        *answer[1:],
    ],
    "nothing": lambda answer: [],
}


@pytest.mark.parametrize("shape", RIGHT)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_is_found_and_not_timed(shape: str, mutant: str) -> None:
    """Whatever the shape of the answer."""
    found, peer = compared(shape, MUTANTS[mutant](list(RIGHT[shape])))

    assert list(found["differs"]) == ["peer"]
    assert set(found["ms"]) == {"ours"}
    assert peer.asked == 1
    whole = {"corpora": {"slim": {"questions": [found]}}}
    assert goals.differing(whole) == [f"{BY_SHAPE[shape].name}: peer"]


@pytest.mark.parametrize(
    ("shape", "answer"),
    [
        ("groups", [("error", 12), ("info", 301), ("warn", 40)]),
        ("groups", [("error", 40), ("info", 300), ("warn", 12)]),
        ("rows", [(1_000_001 - n, f"row {n}") for n in range(100)]),
        ("rows", [(1_000 - n, f"row {n}") for n in range(1, 101)]),
        ("top", [(f"h{n}", 50 - n) for n in range(9)] + [("h9", 40)]),
        ("quantile", [("auth", 12.5), ("shop", 99.26)]),
    ],
)
def test_a_small_difference_is_one(shape: str, answer: Plain) -> None:
    """A count off by one, a time, a shifted page, a tenth place, a hundredth of a millisecond."""
    assert compared(shape, answer)[0]["differs"]


@pytest.mark.parametrize("share", [1.06, 0.94, float("nan"), -1.0])
def test_an_estimate_may_not_be_far_off(share: float) -> None:
    """Five per cent are granted to stores that estimate by design."""
    scaled: Plain = [(name, value * share) for name, value in RIGHT["quantile"]]

    assert compared("quantile", scaled, estimates=True)[0]["differs"]


@pytest.mark.parametrize("shape", RIGHT)
def test_equal_answers_are_timed_in_turns(shape: str) -> None:
    """In any order; a store that cannot be asked is left out without a figure."""
    found, peer = compared(shape, list(reversed(RIGHT[shape])))
    none, silent = compared(shape, None)

    assert found["differs"] == {}
    assert {name: one["rounds"] for name, one in found["ms"].items()} == {"ours": 2, "peer": 2}
    assert peer.asked == 3
    assert set(none["ms"]) == {"ours"}
    assert silent.asked == 1
