"""Times of every form, by column, against Python's own date arithmetic."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestor import timestamps
from ingestor.timestamps import read_times

RECEIVED = 1_795_219_200_000_007
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(*when: int) -> int:
    return (datetime(*when, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)  # type: ignore[arg-type]


MIDNIGHT = micros(2026, 11, 21)

GOOD = {
    # RFC 3339
    "2026-11-21T00:00:00Z": (MIDNIGHT, None),
    "2026-11-21t00:00:00z": (MIDNIGHT, None),
    "2026-11-21T00:00:00.2Z": (MIDNIGHT + 200_000, None),
    "2026-11-21T00:00:00.123456Z": (MIDNIGHT + 123_456, None),
    "2026-11-21T00:00:00.123456789Z": (MIDNIGHT + 123_456, 789),
    "2026-11-21T00:00:00.1234567Z": (MIDNIGHT + 123_456, 700),
    "2026-11-21T00:00:00.123456000Z": (MIDNIGHT + 123_456, 0),
    "2026-11-21T00:00:00.123456789123456Z": (MIDNIGHT + 123_456, 789),
    "2026-11-21T01:30:00+01:30": (MIDNIGHT, None),
    "2026-11-20T22:00:00-02:00": (MIDNIGHT, None),
    "2026-11-21T00:00:00-00:00": (MIDNIGHT, None),
    "2016-12-31T23:59:60Z": (micros(2017, 1, 1), None),
    # ISO 8601
    "2026-11-21T00:00:00": (MIDNIGHT, None),
    "2026-11-21 00:00:00": (MIDNIGHT, None),
    "2026-11-21 00:00:00.5": (MIDNIGHT + 500_000, None),
    "2026-11-21 00:00:00,123": (MIDNIGHT + 123_000, None),
    "2026-11-21T01:00:00+0100": (MIDNIGHT, None),
    "2026-11-21T01:00:00+01": (MIDNIGHT, None),
    "2026-11-21T00:00": (MIDNIGHT, None),
    "2026-11-21": (MIDNIGHT, None),
    "2024-02-29": (micros(2024, 2, 29), None),
    "0001-01-01T00:00:00Z": (micros(1, 1, 1), None),
    "9999-12-31T23:59:59.999999Z": (micros(9999, 12, 31, 23, 59, 59, 999_999), None),
    # Unix time; the unit follows from the size
    "1795219200": (MIDNIGHT, None),
    "1795219200.25": (MIDNIGHT + 250_000, None),
    "1795219200.123456789": (MIDNIGHT + 123_456, 789),
    "1795219200123": (MIDNIGHT + 123_000, None),
    "1795219200123.4567": (MIDNIGHT + 123_456, 700),
    "1795219200123456": (MIDNIGHT + 123_456, None),
    "1795219200123456789": (MIDNIGHT + 123_456, 789),
    "-1": (-1_000_000, None),
    "-1.5": (-1_500_000, None),
    "-0.0000000015": (-1, 999),
    "4294967295": ((2**32 - 1) * 1_000_000, None),
    "4294967296": (2**32 * 1000, None),
    # the time of receipt
    "": (RECEIVED, None),
    "0": (RECEIVED, None),
    "0.0": (RECEIVED, None),
    "-": (RECEIVED, None),
}

BAD = [
    "nope", "not-a-time", "x", "+", "5x", "2026-11", "2026-1-1", "2026-13-01", "2026-00-10",
    "2026-02-29", "2026-04-31", "2026-11-21T24:00:00Z", "2026-11-21T00:60:00Z", "2026-11-21T00:00:61Z",
    "2026-11-21T00:00:00.Z", "2026-11-21T00:00:00ZZ", "2026-11-21T00:00:00 Z", "2026-11-21Z",
    "2026-11-21T00:00:00+24:00", "2026-11-21T00:00:00+01:60", "2026-11-21T00:00:00+1", " 2026-11-21",
    "2026/11/21", "21/Nov/2026:00:00:00 +0000", "Sat, 21 Nov 2026 00:00:00 GMT", "0000-01-01",
    "9999-12-31T23:59:59-01:00", "99999999999999999999", "1e9", "0x10", "NaN", "Infinity",
    "\uff11\uff17\uff19\uff15\uff12\uff11\uff19\uff12\uff10\uff10",  # digits, but not ASCII
    "2026-11-21T00:00:00\x00Z", "🕛" * 7, "9" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_each_form_alone(text: str) -> None:
    """A column of one value takes Arrow's own reader where it can."""
    times = read_times(pa.array([text] * 3), RECEIVED)

    assert not times.bad.any()
    expected, fine = GOOD[text]
    assert times.micros.tolist() == [expected] * 3
    assert (times.nanos.to_pylist() if times.nanos is not None else [None] * 3) == [fine] * 3


def test_all_forms_in_one_column() -> None:
    """Each value's form is its own affair; null is the time of receipt as well."""
    column = pa.array([*GOOD, None, *BAD])

    times = read_times(column, RECEIVED)

    wanted = [*GOOD.values(), (RECEIVED, None)]
    assert times.bad.tolist() == [False] * len(wanted) + [True] * len(BAD)
    assert times.micros[: len(wanted)].tolist() == [value for value, _ in wanted]
    assert times.nanos is not None
    assert times.nanos.to_pylist()[: len(wanted)] == [fine for _, fine in wanted]


@pytest.mark.parametrize("text", BAD)
def test_nonsense_is_bad(text: str) -> None:
    """Never guessed, alone or beside a good value."""
    assert read_times(pa.array([text]), RECEIVED).bad.all()
    assert read_times(pa.array(["2026-11-21T00:00:00Z", text]), RECEIVED).bad.tolist() == [
        False,
        True,
    ]


def test_numbers_as_numbers() -> None:
    """Integers and doubles: the same rules; a double is rounded to the microsecond."""
    whole = pa.array(
        [1795219200, 1795219200123, 1795219200123456, 1795219200123456789, -1, 0, None]
    )
    times = read_times(whole, RECEIVED)
    assert times.micros.tolist() == [
        MIDNIGHT, MIDNIGHT + 123_000, MIDNIGHT + 123_456, MIDNIGHT + 123_456, -1_000_000, RECEIVED, RECEIVED,
    ]  # fmt: skip
    assert times.nanos is not None
    assert times.nanos.to_pylist() == [None, None, None, 789, None, None, None]

    doubles = pa.array([1795219200.25, 1795219200123.5, 0.0, None, 1e300, float("nan")])
    times = read_times(doubles, RECEIVED)
    assert times.bad.tolist() == [False, False, False, False, True, True]
    assert times.micros[:4].tolist() == [MIDNIGHT + 250_000, MIDNIGHT + 123_500, RECEIVED, RECEIVED]


def test_extremes_of_64_bits_do_not_overflow() -> None:
    """The least and the greatest integer are nanoseconds like any other."""
    times = read_times(pa.array([-(1 << 63), (1 << 63) - 1]), RECEIVED)
    assert times.micros.tolist() == [-(1 << 63) // 1000, ((1 << 63) - 1) // 1000]
    text = read_times(pa.array([str(-(1 << 63)), str((1 << 63) - 1), str(1 << 63)]), RECEIVED)
    assert text.bad.tolist() == [True, False, True]


def test_other_types_are_bad_unless_null() -> None:
    """A boolean is no time."""
    assert read_times(pa.array([True, None]), RECEIVED).bad.tolist() == [True, False]
    assert read_times(pa.nulls(2), RECEIVED).micros.tolist() == [RECEIVED] * 2
    assert len(read_times(pa.array([], pa.string()), RECEIVED).micros) == 0


def test_a_slice_of_a_column_reads_its_own_values() -> None:
    """Arrow slices share buffers; offsets must be honoured."""
    column = pa.array(["bad", "2026-11-21", "2026-11-22T00:00:00Z", "bad"]).slice(1, 2)
    times = read_times(column, RECEIVED)
    assert times.micros.tolist() == [MIDNIGHT, MIDNIGHT + 86_400_000_000]


@settings(max_examples=150)
@given(
    when=st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)),  # noqa: DTZ001 - hypothesis's way
    east=st.integers(-23 * 60, 23 * 60),
    mark=st.sampled_from("Tt "),
    point=st.sampled_from(".,"),
)
def test_any_date_agrees_with_python(when: datetime, east: int, mark: str, point: str) -> None:
    """Independent model: datetime's own arithmetic."""
    sign, zone = "-" if east < 0 else "+", abs(east)
    text = when.strftime(f"%m-%d{mark}%H:%M:%S{point}%f")
    text = f"{when.year:04}-{text}{sign}{zone // 60:02}:{zone % 60:02}"
    expected = (when.replace(tzinfo=UTC) - timedelta(minutes=east) - EPOCH) // timedelta(
        microseconds=1
    )

    times = read_times(pa.array([text, "2026-11-21"]), RECEIVED)

    assert (times.bad[0], times.micros[0]) == (False, expected)


EDITS = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from("0123456789-:TZ+. tz,x"), st.integers(0, 2)),
    max_size=3,
)


@settings(max_examples=400)
@given(seed=st.sampled_from(sorted(GOOD)), edits=EDITS)
def test_arrows_reader_and_ours_agree(seed: str, edits: list[tuple[int, str, int]]) -> None:
    """The short cut gives the same verdict, time and digits as the general way, on damaged values too."""
    chars = list(seed)
    for place, char, kind in edits:
        place = min(place, len(chars))
        chars[place : place + (kind != 1)] = [] if kind == 2 else [char]
    column = pa.array(["".join(chars)])

    def fresh() -> timestamps._Work:
        return timestamps._Work(
            np.full(1, RECEIVED, np.int64), np.zeros(1, bool), np.full(1, -1, np.int16)
        )

    short, general = fresh(), fresh()
    if not timestamps._read_alike(column, short):
        return
    timestamps._read_mixed(column, general)

    one, other = short.times(), general.times()
    assert one.bad[0] == other.bad[0]
    if not one.bad[0]:
        assert one.micros[0] == other.micros[0]
        assert str(one.nanos) == str(other.nanos)
