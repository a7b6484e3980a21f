"""The shop's rows: shares of levels, traces that hang together, the same seed the same rows."""

from collections import Counter
from itertools import islice

import pyarrow as pa
import pytest

from node.simulate.generator import Shop

START = 1_767_225_600_000_000


def rows(seed: int, chunks: int = 2, **options: object) -> pa.Table:
    """The first chunks of a shop."""
    return pa.concat_tables(islice(Shop(seed, START, **options).chunks(), chunks))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def table() -> pa.Table:
    """About 40,000 rows."""
    return rows(7)


def test_the_same_seed_gives_the_same_rows(table: pa.Table) -> None:
    """And another seed gives others."""
    assert rows(7).equals(table)
    assert not rows(8).equals(table)


def test_levels_have_the_promised_shares(table: pa.Table) -> None:
    """5 % error, 10 % warn, 85 % info and debug, each within a relative tenth of 40,000 rows."""
    counts = Counter(table["level"].to_pylist())
    total = table.num_rows

    assert counts["error"] / total == pytest.approx(0.05, rel=0.1)
    assert counts["warn"] / total == pytest.approx(0.10, rel=0.1)
    assert (counts["info"] + counts["debug"]) / total == pytest.approx(0.85, rel=0.02)
    assert set(counts) == {"error", "warn", "info", "debug"}


def test_each_parent_is_a_span_of_the_same_trace(table: pa.Table) -> None:
    """A span's parent logs in the same trace; a trace has one root and several services."""
    spans: dict[str, set[str]] = {}
    services: dict[str, set[str]] = {}
    for row in table.select(["trace_id", "span_id", "service"]).to_pylist():
        spans.setdefault(row["trace_id"], set()).add(row["span_id"])
        services.setdefault(row["trace_id"], set()).add(row["service"])

    for row in table.select(["trace_id", "parent_id"]).to_pylist():
        assert row["parent_id"] is None or row["parent_id"] in spans[row["trace_id"]]
    assert sum(len(names) > 1 for names in services.values()) > 0.9 * len(services)


def test_an_error_reaches_the_root_of_its_trace(table: pa.Table) -> None:
    """In each trace with an error, the gateway's last row is an error with status 500."""
    failing: dict[str, dict[str, object]] = {}
    for row in table.to_pylist():
        if row["level"] == "error":
            failing[row["trace_id"]] = row

    assert failing
    for last in failing.values():
        assert (last["service"], last["status"], last["parent_id"]) == ("gateway", 500, None)


def test_rows_ascend_within_a_chunk_and_keep_the_rate() -> None:
    """Times start at the given moment; the mean rate is the one asked for, within a tenth."""
    table = rows(3, chunks=4, rows_per_second=500.0)
    first = rows(3, chunks=1, rows_per_second=500.0)["timestamp"].to_numpy()
    seconds = (table["timestamp"].to_numpy().max() - START) / 1e6

    assert (first[1:] >= first[:-1]).all()
    assert first[0] >= START
    assert table.num_rows / seconds == pytest.approx(500, rel=0.1)


def test_bursts_crowd_ten_seconds_of_each_minute() -> None:
    """Two thirds of a minute's requests (4 times the rate) fall into its first 10 seconds."""
    calm, burst = (rows(5, 8, rows_per_second=100.0, burst=flag) for flag in (False, True))

    def crowded(table: pa.Table) -> float:
        second = (table["timestamp"].to_numpy() - START) // 1_000_000 % 60
        return float((second < 10).mean())

    assert crowded(calm) == pytest.approx(1 / 6, abs=0.04)
    assert crowded(burst) == pytest.approx(2 / 3, abs=0.04)


def test_users_come_back_in_sessions(table: pa.Table) -> None:
    """A user has one session, many users have several requests."""
    pairs = set(zip(table["user_id"].to_pylist(), table["session_id"].to_pylist(), strict=True))

    assert len(pairs) == len({user for user, _ in pairs}) == len({session for _, session in pairs})
    assert len(pairs) < len(set(table["trace_id"].to_pylist()))
