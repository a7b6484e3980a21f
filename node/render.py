"""What reaches a terminal: text made harmless, rows as lines, tables, JSON.

Log text is written by strangers. A character that moves the cursor, rings, reorders the line (bidi) or
hides is shown as its escape (`\\x1b`, `\\u202e`), so that no row can forge another or command the
terminal. JSON stays valid JSON: on a terminal such characters become `\\uXXXX` inside the strings.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

#: Invisible, but part of ordinary words and emoji: the zero-width joiner and non-joiner.
_HARMLESS = frozenset("\u200c\u200d")
_COLOURS = {"fatal": "1;31", "error": "31", "warn": "33", "debug": "2", "trace": "2"}
#: Fields shown in a place of their own, or of no use to a reader.
_LEADING = ("timestamp", "level", "service", "message")
_HIDDEN = frozenset({*_LEADING, "_id", "tenant", "received_at"})


def escaped(char: str) -> str:
    """The visible spelling of a character."""
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def safe(text: str, keep: str = "\t") -> str:
    """`text` with every character that is not plainly printable escaped, but for those in `keep`."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep or char in _HARMLESS else escaped(char)
        for char in text
    )


def safe_lines(text: str) -> str:
    """As `safe`, with line ends kept and each further line indented, so that it can't pass for a row."""
    return "\n    ".join(safe(line) for line in text.replace("\r\n", "\n").split("\n"))


def safe_json(text: str) -> str:
    """JSON text with harmful characters as JSON escapes; still the same value."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in "\n\t" or char in _HARMLESS else _json_escape(char)
        for char in text
    )


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(
        f"\\u{int.from_bytes(units[i : i + 2], 'big'):04x}" for i in range(0, len(units), 2)
    )


def is_terminal(stream: TextIO) -> bool:
    """Whether a person looks at `stream`."""
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def print_json(value: Any, stream: TextIO | None = None) -> None:
    """`value` as indented JSON."""
    out: TextIO = sys.stdout if stream is None else stream
    text = json.dumps(value, indent=2, ensure_ascii=False)
    out.write((safe_json(text) if is_terminal(out) else text) + "\n")


def _value(value: Any) -> str:
    if isinstance(value, str):
        shown = safe(value, keep="")
        return f'"{shown}"' if not shown or " " in shown or '"' in shown else shown
    return safe(json.dumps(value, ensure_ascii=False), keep="")


def row_line(row: Mapping[str, Any], colour: bool) -> str:
    """One row as `time level service message field=value …`."""
    level = safe(str(row.get("level", "")), keep="")
    shown = f"{level:<5}"
    if colour and level in _COLOURS:
        shown = f"\x1b[{_COLOURS[level]}m{shown}\x1b[0m"
    head = (
        f"{safe(str(row.get('timestamp', '')), '')} {shown} {safe(str(row.get('service', '')), '')}"
    )
    rest = " ".join(
        f"{safe(name, keep='')}={_value(value)}"
        for name, value in row.items()
        if name not in _HIDDEN and value is not None
    )
    if colour and rest:
        rest = f"\x1b[2m{rest}\x1b[0m"
    line = f"{head}  {safe_lines(str(row.get('message', '')))}"
    return f"{line}  {rest}" if rest else line


def print_rows(rows: Iterable[Mapping[str, Any]], stream: TextIO | None = None) -> int:
    """Rows as lines; the number printed."""
    out: TextIO = sys.stdout if stream is None else stream
    colour, count = is_terminal(out), 0
    for row in rows:
        out.write(row_line(row, colour) + "\n")
        count += 1
    return count


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table on stdout; numbers to the right, plain when stdout is no terminal."""
    body = [["" if cell is None else _cell(cell) for cell in row] for row in rows]
    numeric = [
        bool(body) and all(row[i].replace(",", "").replace(".", "").isdigit() for row in body)
        for i in range(len(columns))
    ]
    if not is_terminal(sys.stdout):
        _plain_table(columns, body)
        return
    table = Table(title=Text(title), title_justify="left")
    for name, right in zip(columns, numeric, strict=True):
        table.add_column(Text(safe(name)), justify="right" if right else "left", overflow="fold")
    for row in body:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def _cell(cell: Any) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        return f"{cell:,.2f}"
    return safe(cell if isinstance(cell, str) else str(cell), keep="")


def _plain_table(columns: Sequence[str], body: list[list[str]]) -> None:
    widths = [
        max([len(safe(name)), *(len(row[i]) for row in body)]) for i, name in enumerate(columns)
    ]
    for row in [[safe(name) for name in columns], *body]:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")


def bytes_text(count: float) -> str:
    """A size for people: `3.4 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def note(text: str) -> None:
    """A line for the person, on stderr."""
    sys.stderr.write(safe(text, keep="\n\t") + "\n")
    sys.stderr.flush()
