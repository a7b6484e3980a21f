"""What makes two answers equal."""

import pytest

from bench.peers.ours import parameters, plain
from bench.peers.sql import CLICKHOUSE, DUCKDB, POSTGRES, queries
from bench.peers.victorialogs import queries as logsql
from bench.questions import QUESTIONS, canonical, facts, micros, same, time_text

FACTS = facts(2, 1_000)


def test_time_text_and_micros_are_inverse() -> None:
    """Also with the nine digits that other stores answer."""
    assert micros(time_text(1_767_225_600_000_001)) == 1_767_225_600_000_001
    assert micros("2026-01-01T00:00:00.123456789Z") == 1_767_225_600_123_456
    assert micros("2026-01-01T00:00:00Z") == 1_767_225_600_000_000


def test_no_arrow_kernel_runs_for_each_row_of_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """It took 0.1 ms a row, within the time of the question: 80 ms for the rows of each minute."""
    question = next(one for one in QUESTIONS if one.name == "rows per minute per service")
    stamps = ["2026-01-01T00:00:00.000000Z", "2026-01-01T00:01:00.000000Z"]
    rows = [{"timestamp": stamp, "service": "web", "count": 7} for stamp in stamps]
    monkeypatch.setattr("bench.questions.pa.scalar", None)

    told = plain({"by": ["service"], "agg": ["count"], "step": "1m", "rows": rows}, question)

    first = 1_767_225_600_000_000
    assert told == [(first, "web", 7), (first + 60_000_000, "web", 7)]


def test_the_facts_cover_the_corpus() -> None:
    """Every row lies in start..end, and the hour ends with it."""
    assert FACTS.start == "2026-01-01T00:00:00.000000Z"
    assert FACTS.end == "2026-01-01T00:02:00.000000Z"
    assert (FACTS.hour_start, FACTS.hour_end) == (FACTS.start, FACTS.end)
    assert FACTS.word == "unicorn000001"


@pytest.mark.parametrize(
    "asked",
    [parameters(FACTS), *(queries(one, "t", FACTS) for one in (DUCKDB, POSTGRES, CLICKHOUSE)), logsql(FACTS)],
)  # fmt: skip
def test_every_store_knows_every_question(asked: dict[str, object]) -> None:
    """A question that is added must be put into the words of each."""
    assert set(asked) == {one.name for one in QUESTIONS}


def test_a_full_page_leaves_out_rows_as_old_as_its_last() -> None:
    """Two stores may show different ones of several equally old rows, not different others."""
    page = [(200 - i, f"m{i}") for i in range(99)]

    one = canonical([*page, (5, "a")], "rows")
    other = canonical([(5, "b"), *page], "rows")
    wrong = canonical([*page[:-1], (50, "x"), (5, "a")], "rows")

    assert one == other == sorted(page, reverse=True)
    assert wrong != one
    assert canonical([(5, "a")], "rows") != canonical([(5, "b")], "rows")


def test_who_of_equal_ones_is_the_tenth_does_not_matter() -> None:
    """How many they have does."""
    top = [("a", 9), ("b", 5)]

    assert canonical([*top, ("c", 2)], "top") == canonical([*top, ("d", 2)], "top")
    assert canonical([*top, ("c", 2)], "top") != canonical([*top, ("c", 1)], "top")
    assert canonical(top, "top") != canonical([("a", 9), ("c", 6)], "top")


def test_an_estimate_may_be_off_a_little_an_exact_quantile_not_at_all() -> None:
    """And nobody may leave out a group."""
    exact = canonical([("a", 100.0), ("b", 10.0)], "quantile")

    assert same(exact, [("a", 104.0), ("b", 10.0)], "quantile", estimates=True)
    assert not same(exact, [("a", 104.0), ("b", 10.0)], "quantile")
    assert not same(exact, [("a", 106.0), ("b", 10.0)], "quantile", estimates=True)
    assert not same(exact, [("a", 100.0)], "quantile", estimates=True)


def test_empty_groups_say_nothing() -> None:
    """A store that fills empty minutes with zeros answers the same as one that leaves them out."""
    assert canonical([(60, "a", 1), (120, "a", 0)], "groups") == [(60, "a", 1)]


def test_our_answers_become_plain() -> None:
    """Groups with and without buckets, rows."""
    by_name = {one.name: one for one in QUESTIONS}
    counted = {"by": ["level"], "agg": ["count"], "rows": [{"level": "info", "count": 3}]}
    minutes = {
        "by": ["service"], "agg": ["count"], "step": "1m",
        "rows": [{"bucket": "2026-01-01T00:01:00.000000Z", "service": "auth", "count": 2}],
    }  # fmt: skip
    page = {"rows": [{"timestamp": "2026-01-01T00:00:00.000002Z", "message": "m"}]}

    assert plain(counted, by_name["count by level"]) == [("info", 3)]
    assert plain(minutes, by_name["rows per minute per service"]) == [
        (1_767_225_660_000_000, "auth", 2)
    ]
    assert plain(page, by_name["rare word"]) == [(1_767_225_600_000_002, "m")]
