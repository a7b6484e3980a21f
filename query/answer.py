"""QueryAnswer: what a read gives back. Values only."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class QueryAnswer:
    """Rows in order (or folded groups), and how far they can be trusted. `next_cursor`: there is more."""

    table: pa.Table
    complete: bool
    missing: tuple[dict[str, Any], ...]
    stats: dict[str, Any]
    next_cursor: str | None = None
