"""Times as a caller writes them, as the server reads them. Pure.

`since="1h"` counts back from now (units s m h d w, combined as `1d12h`); a datetime becomes RFC 3339
in UTC (a naive one is local time); anything else goes to the server as it is.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from .rows import rfc3339

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_PART = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw])")


def seconds_of(duration: str) -> float:
    """`90s`, `15m`, `1.5h`, `1d12h`, `2w` -> seconds.

    Raises:
        ValueError: not such a text.
    """
    text = duration.strip()
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"not a duration: {duration!r} (write 90s, 15m, 1.5h, 1d12h or 2w)")
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)


def start_of(since: str, now_ns: int) -> str:
    """The time `since` before now, as RFC 3339 in UTC."""
    return rfc3339(now_ns - int(seconds_of(since) * 1_000_000_000))


def time_text(value: datetime | int | float | str) -> str:
    """A point in time as the server reads it."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return str(value)
