"""Points in time as users write them -> microseconds. Pure: "now" is an argument.

2026-11-20T13:00:00.123456789Z   RFC 3339, any number of fraction digits; without zone: UTC
2026-11-20 · 2026-11-20 13:00    a date is its midnight, UTC
1795000000 · 1795000000.5        Unix time; the unit (s, ms, µs, ns) by size, as in ingestion
-1h · now-15m · now · 1h30m      relative to now; a bare duration (in `since`) lies before now
"""

import re
from datetime import UTC, datetime, timedelta, timezone

from records.errors import InvalidRequest
from records.timestamps import MICROS_PER_HOUR, MICROS_PER_MINUTE, MICROS_PER_SECOND

_UNITS = {
    "us": 1,
    "µs": 1,
    "ms": 1000,
    "s": MICROS_PER_SECOND,
    "m": MICROS_PER_MINUTE,
    "h": MICROS_PER_HOUR,
    "d": 24 * MICROS_PER_HOUR,
    "w": 7 * 24 * MICROS_PER_HOUR,
}
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)(us|µs|ms|s|m|h|d|w)")
_UNIX = re.compile(r"-?\d{1,19}(\.\d+)?")
_STAMP = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?\s*([Zz]|[+-]\d\d:?\d\d)?)?"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_MICROS = 1 << 61


def duration_micros(text: str, parameter: str) -> int:
    """Microseconds of `1h30m`, `90s`, `250ms`; positive.

    Raises:
        InvalidRequest: not a duration.
    """
    total, at = 0.0, 0
    text = text.strip()
    while at < len(text) and (found := _DURATION.match(text, at)):
        total += float(found[1]) * _UNITS[found[2]]
        at = found.end()
    if not text or at != len(text) or not 1 <= total <= _MAX_MICROS:
        raise InvalidRequest(
            f"{parameter}: {text!r} is not a duration like 90s, 15m, 1h30m or 7d",
            parameter=parameter,
        )
    return round(total)


def instant_micros(text: str, now_micros: int, parameter: str) -> int:
    """The microseconds since 1970 that `text` names.

    Raises:
        InvalidRequest: not a time.
    """
    text = text.strip()
    found = _relative(text, now_micros, parameter)
    if found is None:
        found = _unix(text)
    if found is None:
        found = _stamp(text)
    if found is None or abs(found) > _MAX_MICROS:
        raise InvalidRequest(
            f"{parameter}: {text!r} is not a time; write 2026-11-20T13:00:00Z, 2026-11-20, "
            "a Unix time, or -15m for fifteen minutes ago",
            parameter=parameter,
        )
    return found


def since_micros(text: str, now_micros: int) -> int:
    """The time that `since` names: a bare duration lies before now, anything else is a time.

    Raises:
        InvalidRequest: neither.
    """
    lowered = text.strip().lower()
    if _DURATION.match(lowered):
        return instant_micros("-" + lowered, now_micros, "since")
    return instant_micros(text, now_micros, "since")


def _relative(text: str, now_micros: int, parameter: str) -> int | None:
    lowered = text.lower()
    if lowered == "now":
        return now_micros
    rest = lowered.removeprefix("now")
    if rest[:1] not in ("-", "+") or not _DURATION.match(rest, 1):
        return None
    sign = -1 if rest[0] == "-" else 1
    return now_micros + sign * duration_micros(rest[1:], parameter)


def _unix(text: str) -> int | None:
    if not _UNIX.fullmatch(text):
        return None
    whole, _, fraction = text.partition(".")
    size = abs(int(whole))
    if size < 1 << 32:
        scale = MICROS_PER_SECOND
    elif size < (1 << 32) * 1000:
        scale = 1000
    elif size < (1 << 32) * 1_000_000:
        scale = 1
    else:
        return int(whole) // 1000
    part = int(fraction[:9].ljust(9, "0")) * scale // 1_000_000_000 if fraction else 0
    return int(whole) * scale + (-part if whole.startswith("-") else part)


def _stamp(text: str) -> int | None:
    found = _STAMP.fullmatch(text)
    if not found:
        return None
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    try:
        moment = datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0),
            tzinfo=_zone(zone),
        )  # fmt: skip
    except ValueError:
        return None
    micros = int((fraction or "")[:6].ljust(6, "0"))
    return (moment - _EPOCH) // timedelta(microseconds=1) + micros


def _zone(text: str | None) -> timezone:
    if not text or text in "Zz":
        return UTC
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[-2:]))
    return timezone(-offset if text[0] == "-" else offset)


def rfc3339(micros: int) -> str:
    """The time as RFC 3339 in UTC with six digits; years beyond 9999 as plain microseconds."""
    try:
        moment = _EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        return str(micros)
    return moment.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
