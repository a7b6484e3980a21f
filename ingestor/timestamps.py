"""A column of time values, of any form that agents send, to int64 microseconds UTC: by column.

Accepted: RFC 3339 and ISO 8601 date-times (`T`, `t` or a space between; seconds or minutes may be absent;
any number of fraction digits after `.` or `,`; `Z`, `+hh:mm`, `+hhmm`, `+hh` or no zone, which is UTC),
`YYYY-MM-DD`, and Unix time as an integer or a decimal, number or text, whose unit follows from its size
(below 2^32 seconds, below 2^32 thousands milliseconds, below 2^32 millions microseconds, else
nanoseconds). Null, empty, `0` and `-` mean: the time of receipt. Anything else is marked bad. A leap
second (`:60`) is the first moment of the next minute.

Digits below the microsecond, up to the nanosecond, come apart as 0..999; null where none were given.
A time is never moved: what cannot be kept exactly (years outside 1..9999) is bad.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

pc: Any = pyarrow.compute
Array = np.ndarray[Any, Any]

_MAX_TEXT_BYTES = 64
_SECONDS_BELOW = 1 << 32
_FIRST_MICROS = -62_135_596_800_000_000  # 0001-01-01T00:00:00Z
_LAST_MICROS = 253_402_300_799_999_999  # 9999-12-31T23:59:59.999999Z
_MAX_DOUBLE = 9.2e18
_DECIMAL = r"^(?P<sign>-?)(?P<whole>[0-9]{1,18})(?:\.(?P<fraction>[0-9]+))?$"
_DIGITS = (0, 1, 2, 3, 5, 6, 8, 9)


@dataclass(frozen=True, slots=True)
class Times:
    """`micros[i]` is valid where not `bad[i]`; `nanos` (0..999) is None when no value has finer digits."""

    micros: Array
    bad: Array
    nanos: pa.Array | None = None


@dataclass(slots=True)
class _Work:
    """The answer while it is made; `fine[i]` is -1 where value i has no digits below the microsecond."""

    micros: Array
    bad: Array
    fine: Array

    def times(self) -> Times:
        outside = (self.micros < _FIRST_MICROS) | (self.micros > _LAST_MICROS)
        bad = self.bad | outside
        if not (self.fine >= 0).any():
            return Times(self.micros, bad)
        return Times(self.micros, bad, pa.array(self.fine, pa.int16(), mask=self.fine < 0))


def read_times(column: pa.Array, received_at: int) -> Times:
    """The times of `column` (string, int64, double, times; anything else is bad unless null).

    `received_at` (microseconds) stands in for null, empty, `0` and `-`. Cost: a few dozen passes of
    numpy over the column, no Python per value.
    """
    size = len(column)
    work = _Work(
        np.full(size, received_at, np.int64), np.zeros(size, bool), np.full(size, -1, np.int16)
    )
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_struct(kind):
        return _already_read(column, received_at)
    if pa.types.is_dictionary(kind):
        return _through_dictionary(column, received_at)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        _read_texts(column.cast(pa.string()), work)
    elif pa.types.is_integer(kind):
        present = np.asarray(column.is_valid())
        values = np.asarray(pc.fill_null(column, 0).cast(pa.int64()))
        _store_unix(np.flatnonzero(present & (values != 0)), values, work)
    elif pa.types.is_floating(kind):
        present = np.asarray(column.is_valid())
        values = np.asarray(pc.fill_null(column, 0.0).cast(pa.float64()))
        _store_doubles(np.flatnonzero(present & (values != 0)), values, work)
    else:
        work.bad = np.asarray(column.is_valid()).copy()
    return work.times()


def _already_read(column: pa.Array, received_at: int) -> Times:
    """Microseconds UTC, or a struct of `micros` and `nanos`, as the native kernel gives them."""
    nanos = None
    if pa.types.is_struct(column.type):
        nanos, column = column.field("nanos"), column.field("micros")
    micros = np.asarray(pc.fill_null(column.view(pa.int64()), received_at))
    return Times(micros, np.zeros(len(column), bool), nanos)


def _through_dictionary(column: pa.Array, received_at: int) -> Times:
    return read_times(column.cast(column.type.value_type), received_at)


# ---- numbers ---------------------------------------------------------------------------------------


def _store_unix(at: Array, values: Array, work: _Work) -> None:
    """Integers at `at`: seconds, milliseconds, microseconds or nanoseconds by size."""
    chosen = values[at]
    if chosen.size == 0:
        return
    with np.errstate(over="ignore"):
        size = np.abs(chosen)
    size = np.where(size < 0, np.iinfo(np.int64).max, size)  # abs of the least int64
    seconds = size < _SECONDS_BELOW
    millis = ~seconds & (size < _SECONDS_BELOW * 1000)
    nanos = size >= _SECONDS_BELOW * 1_000_000
    scale = np.where(seconds, 1_000_000, np.where(millis, 1000, 1))
    micros = np.where(nanos, chosen // 1000, 0)
    work.micros[at] = np.where(nanos, micros, np.where(nanos, 0, chosen) * scale)
    work.fine[at] = np.where(nanos, chosen % 1000, -1)


def _store_doubles(at: Array, values: Array, work: _Work) -> None:
    """Doubles at `at`, rounded to the microsecond (a double carries no more for today's dates)."""
    chosen = values[at]
    size = np.abs(chosen)
    with np.errstate(invalid="ignore"):
        work.bad[at] = ~(size < _MAX_DOUBLE)
    chosen = np.where(work.bad[at], 0.0, chosen)
    scale = np.select(
        [size < _SECONDS_BELOW, size < _SECONDS_BELOW * 1e3, size < _SECONDS_BELOW * 1e6],
        [1e6, 1e3, 1.0],
        default=1e-3,
    )
    work.micros[at] = np.rint(chosen * scale).astype(np.int64)


# ---- texts -----------------------------------------------------------------------------------------


def _read_texts(column: pa.Array, work: _Work) -> None:
    if not _read_alike(column, work):
        _read_mixed(column, work)


#: Arrow's own readers, for columns whose values all have the same form: a tenth of the cost of ours.
_ZONED, _ZONED_FINE, _BARE = (
    pa.timestamp("us", "UTC"),
    pa.timestamp("ns", "UTC"),
    pa.timestamp("us"),
)


def _read_alike(column: pa.Array, work: _Work) -> bool:
    """Reads a column whose values are all zoned, all bare or all digits; False if it is none of these."""
    first = column[0].as_py() if len(column) else None
    if not first:
        return False
    if first.isdigit():
        return _read_all_digits(column, work)
    sample = column if len(column) <= 16 else column.take(pa.array(_spread(len(column))))
    for kind in (_BARE,) if len(first) == 10 else (_ZONED, _ZONED_FINE, _BARE):
        try:
            sample.cast(kind)  # a cast that fails costs ten times one that succeeds
            values = column.cast(kind).view(pa.int64())
        except pa.ArrowInvalid:
            continue
        present = np.asarray(values.is_valid())
        numbers = np.asarray(pc.fill_null(values, 0))
        if kind is _ZONED_FINE:
            digits = np.asarray(pc.find_substring_regex(column, r"\.[0-9]{7,}").fill_null(-1))
            work.fine[present] = np.where(digits < 0, -1, numbers % 1000)[present]
            numbers = numbers // 1000
        work.micros[present] = numbers[present]
        return True
    return False


def _spread(size: int) -> Array:
    return np.arange(16) * (size - 1) // 15


def _read_all_digits(column: pa.Array, work: _Work) -> bool:
    offsets, data = _bytes_of(column)
    used = data[offsets[0] : offsets[-1]]
    try:
        if not ((used >= ord("0")) & (used <= ord("9"))).all():
            return False
        values = column.cast(pa.int64())
    except pa.ArrowInvalid:
        return False
    numbers = np.asarray(pc.fill_null(values, 0))
    _store_unix(np.flatnonzero(numbers != 0), numbers, work)
    return True


def _bytes_of(column: pa.Array) -> tuple[Array, Array]:
    """Offsets and bytes of a string column, without a copy."""
    offsets = np.frombuffer(column.buffers()[1], np.int32, len(column) + 1, column.offset * 4)
    buffer = column.buffers()[2]
    return offsets, np.frombuffer(buffer, np.uint8) if buffer is not None else np.zeros(0, np.uint8)


def _read_mixed(column: pa.Array, work: _Work) -> None:
    offsets, data = _bytes_of(column)
    lengths = np.diff(offsets)
    present = np.asarray(column.is_valid())
    if column.null_count:
        lengths = np.where(present, lengths, 0)
    todo = lengths > 0
    work.bad = todo.copy()
    work.bad[lengths == 1] = ~np.isin(data[offsets[:-1][lengths == 1]], list(b"0-"))
    for length in np.unique(lengths[todo]):
        if 10 <= length <= _MAX_TEXT_BYTES:
            _read_group(data, offsets, np.flatnonzero(lengths == length), int(length), work)
    left = work.bad & (lengths <= _MAX_TEXT_BYTES)
    if left.any():
        _read_decimals(column, np.flatnonzero(left), work)


def _read_group(data: Array, offsets: Array, at: Array, length: int, work: _Work) -> None:
    """The values at `at`, all `length` bytes: as a matrix with one row per character position."""
    if at.size == len(offsets) - 1:
        matrix = data[offsets[0] : offsets[-1]].reshape(-1, length)
    else:
        matrix = data[offsets[at][:, None] + np.arange(length, dtype=np.int32)]
    text = np.ascontiguousarray(matrix.T)
    zones = _zone_lengths(text, length)
    for zone in np.unique(zones):
        chosen = zones == zone
        whole = bool(chosen.all())
        part = text if whole else text[:, chosen]
        _read_iso(part, length - int(zone), int(zone), at if whole else at[chosen], work)


def _zone_lengths(text: Array, length: int) -> Array:
    """How many characters at the end of each value are its zone: 0, 1, 3, 5 or 6."""
    zones = np.zeros(text.shape[1], np.int8)
    if length >= 14:
        zones[(text[-1] | 32) == ord("z")] = 1
    for size in (3, 5, 6):
        if length - size < 13:
            continue
        signed = (text[-size] == ord("+")) | (text[-size] == ord("-"))
        if size == 6:
            signed &= text[-3] == ord(":")
        zones[signed & (zones == 0)] = size
    return zones


def _read_iso(text: Array, size: int, zone: int, at: Array, work: _Work) -> None:
    """Date-times of `size` characters and a zone of `zone`; what does not fit stays bad."""
    if size not in (10, 13, 16, 19) and size < 21:
        return
    digits = text - np.uint8(ord("0"))  # wraps: what is no digit is above 9
    good = _all_digits(digits, _DIGITS)
    good &= (text[4] == ord("-")) & (text[7] == ord("-"))
    days, date_good = _days(digits)
    good &= date_good
    seconds, clock_good = _clock(text, digits, size)
    good &= clock_good
    micros, fine, fraction_good = _fraction(text, digits, size)
    good &= fraction_good
    shift, zone_good = _zone_seconds(text, digits, zone)
    good &= zone_good
    total = (days * 86_400 + seconds - shift) * 1_000_000 + micros
    if good.all():
        where, values = at, total
    else:
        where, values = at[good], total[good]
        fine = fine[good] if isinstance(fine, np.ndarray) else fine
    work.micros[where] = values
    work.bad[where] = False
    if fine is not None:
        work.fine[where] = fine


def _all_digits(digits: Array, places: tuple[int, ...] | range) -> Array:
    rows = digits[list(places)]
    return np.asarray((rows <= 9).all(axis=0))


def _two(digits: Array, place: int) -> Array:
    return digits[place].astype(np.int64) * 10 + digits[place + 1]


def _days(digits: Array) -> tuple[Array, Array]:
    """Days since 1970 of the first ten characters.

    Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil.
    """
    year = _two(digits, 0) * 100 + _two(digits, 2)
    month, day = _two(digits, 5), _two(digits, 8)
    leap = ((year % 4 == 0) & (year % 100 != 0)) | (year % 400 == 0)
    lengths = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
    good = (month >= 1) & (month <= 12) & (day >= 1)
    safe = np.where(good, month, 1)
    good &= day <= lengths[safe] + (leap & (safe == 2))
    shifted = year - (safe <= 2)
    era = shifted // 400
    of_era = shifted - era * 400
    of_year = (153 * ((safe + 9) % 12) + 2) // 5 + day - 1
    of_cycle = of_era * 365 + of_era // 4 - of_era // 100 + of_year
    return era * 146_097 + of_cycle - 719_468, good


def _clock(text: Array, digits: Array, size: int) -> tuple[Array, Array]:
    """Seconds of the day from `Thh[:mm[:ss]]`."""
    count = text.shape[1]
    seconds, good = np.zeros(count, np.int64), np.ones(count, bool)
    if size == 10:
        return seconds, good
    good &= ((text[10] | 32) == ord("t")) | (text[10] == ord(" "))
    for place, limit, unit in ((11, 23, 3600), (14, 59, 60), (17, 60, 1)):
        if size < place + 2:
            break
        value = _two(digits, place)
        good &= _all_digits(digits, (place, place + 1)) & (value <= limit)
        if place > 11:
            good &= text[place - 1] == ord(":")
        seconds += value * unit
    return seconds, good


def _fraction(text: Array, digits: Array, size: int) -> tuple[Any, Any, Any]:
    """(microseconds, finer digits or None, well formed) of what stands after the seconds."""
    if size <= 19:
        return 0, None, True
    good = ((text[19] == ord(".")) | (text[19] == ord(","))) & _all_digits(digits, range(20, size))
    count = size - 20
    nanos = np.zeros(text.shape[1], np.int64)
    for place in range(20, 20 + min(count, 9)):
        nanos = nanos * 10 + digits[place]
    nanos *= 10 ** (9 - min(count, 9))
    fine = (nanos % 1000).astype(np.int16) if count > 6 else None
    return nanos // 1000, fine, good


def _zone_seconds(text: Array, digits: Array, zone: int) -> tuple[Any, Any]:
    """Seconds east of UTC and whether the zone is well formed."""
    if zone <= 1:
        return 0, True
    hours_at = text.shape[0] - zone + 1
    hours = _two(digits, hours_at)
    good = _all_digits(digits, (hours_at, hours_at + 1)) & (hours <= 23)
    east = hours * 3600
    if zone > 3:
        minutes_at = text.shape[0] - 2
        minutes = _two(digits, minutes_at)
        good &= _all_digits(digits, (minutes_at, minutes_at + 1)) & (minutes <= 59)
        east = east + minutes * 60
    return np.where(text[hours_at - 1] == ord("-"), -east, east), good


def _read_decimals(column: pa.Array, at: Array, work: _Work) -> None:
    """Unix times as text, exact to the nanosecond; what is none stays bad."""
    texts = column.take(pa.array(at))
    parts = pc.extract_regex(texts, pattern=_DECIMAL)
    matched = np.asarray(parts.is_valid())
    _read_long_integers(texts, at, matched, work)
    at = at[matched]
    if at.size == 0:
        return
    parts = parts.drop_null()
    negative = np.asarray(pc.equal(parts.field("sign"), pa.scalar("-", pa.string())))
    whole = np.asarray(parts.field("whole").cast(pa.int64()))
    fraction = parts.field("fraction")
    digits = np.asarray(pc.binary_length(fraction)).astype(np.int64)
    nine = pc.utf8_slice_codeunits(pc.utf8_rpad(fraction, 9, "0"), 0, 9)
    part = np.asarray(nine.cast(pa.int64()))
    micros, fine = _scaled(whole, part, digits)
    flip = negative & (fine > 0)
    micros = np.where(negative, -micros - flip, micros)
    fine = np.where(flip, 1000 - fine, fine)
    zero = (whole == 0) & (part == 0)
    work.bad[at] = False
    at, micros, fine = at[~zero], micros[~zero], fine[~zero]
    work.micros[at] = micros
    work.fine[at] = fine


def _scaled(whole: Array, part: Array, digits: Array) -> tuple[Array, Array]:
    """`whole` and the billionths `part` of its unit as microseconds and finer digits (-1: none given)."""
    seconds = whole < _SECONDS_BELOW
    millis = ~seconds & (whole < _SECONDS_BELOW * 1000)
    nanos = whole >= _SECONDS_BELOW * 1_000_000
    micros = np.select(
        [seconds, millis, nanos],
        [whole * 1_000_000 * seconds + part // 1000, whole * 1000 * millis + part // 1_000_000,
         whole // 1000],
        default=whole,
    )  # fmt: skip
    fine = np.select(
        [seconds, millis, nanos],
        [part % 1000, part // 1000 % 1000, whole % 1000],
        default=part // 1_000_000,
    )
    given = np.select([seconds, millis, nanos], [digits > 6, digits > 3, True], default=digits > 0)
    return micros, np.where(given, fine, -1).astype(np.int16)


def _read_long_integers(texts: pa.Array, at: Array, matched: Array, work: _Work) -> None:
    """Nanoseconds of 19 digits, which may or may not fit 64 bits: rare, one by one.

    Today's nanoseconds have 19 digits, so that a whole column of them is cast at once where it fits.
    """
    long = pc.match_substring_regex(texts, r"^-?[0-9]{19}$")
    chosen = np.flatnonzero(np.asarray(long) & ~matched)
    if chosen.size == 0:
        return
    try:
        values = np.asarray(texts.take(pa.array(chosen)).cast(pa.int64()))
    except pa.ArrowInvalid:
        exact = [int(text.as_py()) for text in texts.take(pa.array(chosen))]
        fits = np.array([abs(value) < 1 << 63 for value in exact])
        chosen = chosen[fits]
        values = np.array([value for value in exact if abs(value) < 1 << 63], np.int64)
    full = np.zeros(len(work.micros), np.int64)
    full[at[chosen]] = values
    work.bad[at[chosen]] = False
    _store_unix(at[chosen], full, work)
