"""What parsers return: typed columns of the good rows, and each bad row with its reason and bytes."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

#: Quoted values in reasons are cut to this many characters.
QUOTE_CHARACTERS = 64


class RowError(Exception):
    """A row is permanently bad: `code` for programs, the text for people. Never leaves the parsers."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class BadRow:
    """A bad row: its number in the request from 1, why, its bytes as they came, its seq if known."""

    number: int
    code: str
    reason: str
    raw: bytes
    seq: int | None = None
    service: str = ""


@dataclass(slots=True)
class Parsed:
    """One request's rows. `columns` are of equal length `rows`: int64, double, bool or string.

    `numbers[i]` is the number of row i in the request, from 1; None means 1..rows. `raw(number)` gives
    a row's bytes as they came, for rows that turn out bad later; it may be slow.
    """

    columns: dict[str, pa.Array]
    rows: int
    raw: Callable[[int], bytes]
    numbers: np.ndarray | None = None
    bad: list[BadRow] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Rows in the request, good and bad."""
        return self.rows + len(self.bad)

    def row_numbers(self) -> np.ndarray:
        """`numbers`, made if need be."""
        if self.numbers is None:
            return np.arange(1, self.rows + 1)
        return self.numbers


def quoted(value: object) -> str:
    """A value for a reason: cut, with control characters escaped, in double quotes."""
    text = str(value)
    if len(text) > QUOTE_CHARACTERS:
        text = text[:QUOTE_CHARACTERS] + "…"
    safe = "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)
    return '"' + safe.replace('"', '\\"') + '"'
