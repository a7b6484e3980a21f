"""Relative times, and points in time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from quorumlog.times import seconds_of, start_of, time_text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("15m", 900),
        ("1h", 3600),
        ("1.5h", 5400),
        ("1d12h", 129_600),
        ("2w", 1_209_600),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    """Units s m h d w."""
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "h", "1y", "1h ago", "-1h", "1 h", "1h1"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """Said on this side, with an example."""
    with pytest.raises(ValueError, match="not a duration"):
        seconds_of(text)


def test_since_counts_back_from_now() -> None:
    """An hour before midnight."""
    assert start_of("1h", 1_763_683_200 * 10**9) == "2025-11-20T23:00:00.000000Z"


def test_points_in_time() -> None:
    """Datetimes in UTC, everything else as it is."""
    zone = timezone(timedelta(hours=2))
    assert time_text(datetime(2026, 1, 1, 2, tzinfo=zone)) == "2026-01-01T00:00:00Z"
    assert time_text(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00Z"
    assert time_text(1_763_683_200) == "1763683200"
    assert time_text("2026-01-01") == "2026-01-01"
