"""Times as users write them."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from query.times import duration_micros, instant_micros, rfc3339, since_micros
from records.errors import InvalidRequest

NOW = 1_795_000_000_000_000  # 2026-11-18T11:06:40Z
MINUTE = 60_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW),
        ("-15m", NOW - 15 * MINUTE),
        ("now-1h30m", NOW - 90 * MINUTE),
        ("now+1d", NOW + 1440 * MINUTE),
        ("2026-11-18T11:06:40Z", NOW),
        ("2026-11-18T11:06:40.5Z", NOW + 500_000),
        ("2026-11-18T11:06:40.123456789Z", NOW + 123_456),
        ("2026-11-18T13:06:40+02:00", NOW),
        ("2026-11-18t11:06:40z", NOW),
        ("2026-11-18 11:06", NOW - 40_000_000),
        ("2026-11-18", NOW - 40_000_000 - (11 * 60 + 6) * MINUTE),
        ("1795000000", NOW),
        ("1795000000.25", NOW + 250_000),
        ("1795000000000", NOW),
        ("1795000000000000", NOW),
        ("1795000000000000000", NOW),
        ("-1.5", -1_500_000),
        ("0", 0),
    ],
)
def test_each_way_of_writing_a_time(text: str, expected: int) -> None:
    """RFC 3339, dates, Unix times by size, and times relative to now."""
    assert instant_micros(text, NOW, "from") == expected


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-13-01", "2026-02-30", "12:00", "1e9", "now-", "-", "9" * 30]
)
def test_nonsense_names_the_parameter(text: str) -> None:
    """Whatever is no time is refused by the name of its parameter."""
    with pytest.raises(InvalidRequest) as caught:
        instant_micros(text, NOW, "to")

    assert caught.value.details["parameter"] == "to"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90s", 90_000_000), ("1h30m", 90 * MINUTE), ("1.5m", 90_000_000), ("250ms", 250_000)],
)
def test_durations(text: str, expected: int) -> None:
    """Units from µs to weeks, added up."""
    assert duration_micros(text, "step") == expected


@pytest.mark.parametrize("text", ["", "5", "1x", "-1m", "0s", "1m x", "99999999999w"])
def test_bad_durations_are_refused(text: str) -> None:
    """No unit, unknown unit, nothing, or beyond all time."""
    with pytest.raises(InvalidRequest):
        duration_micros(text, "step")


def test_a_bare_duration_in_since_lies_before_now() -> None:
    """`since=1h` is an hour ago; a time is itself."""
    assert since_micros("1h", NOW) == NOW - 60 * MINUTE
    assert since_micros("-1h", NOW) == NOW - 60 * MINUTE
    assert since_micros("2026-11-18T11:06:40Z", NOW) == NOW


@given(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999))
def test_rfc3339_reads_back(micros: int) -> None:
    """Six digits, and every instant of years 1 to 9999 comes back."""
    assert instant_micros(rfc3339(micros), 0, "from") == micros


@given(st.text(max_size=12))
def test_any_text_is_a_time_or_an_error(text: str) -> None:
    """Never another exception."""
    with contextlib.suppress(InvalidRequest):
        assert isinstance(instant_micros(text, NOW, "from"), int)
