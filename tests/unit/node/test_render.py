"""What reaches a terminal: no character of a log text may command it."""

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.render import bytes_text, print_table, row_line, safe, safe_json, safe_lines

HOSTILE = {
    "escape": "\x1b[2J",
    "bell": "\x07",
    "carriage return": "\r",
    "backspace": "\x08",
    "delete": "\x7f",
    "C1 control sequence": "\x9b31m",
    "bidi override": "\u202e",
    "bidi isolate": "\u2066",
    "line separator": "\u2028",
    "byte order mark": "\ufeff",
    "lone surrogate": "\ud800",
    "tag letter": "\U000e0041",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_characters_become_visible_escapes(text: str) -> None:
    """Only printable characters are left, and they can be told from the text around."""
    shown = safe(f"before{text}after")

    assert shown.isprintable()
    assert shown.startswith("before\\")


def test_ordinary_text_is_left_alone() -> None:
    """Umlauts, Chinese, emoji joined by zero-width joiners."""
    for text in ("naïve café", "日志", "👩\u200d💻", "a\tb"):
        assert safe(text) == text


@settings(max_examples=200)
@given(st.text())
def test_a_row_is_one_line_plus_indented_ones(text: str) -> None:
    """A message can't begin a line of its own: what follows a line end is indented."""
    line = row_line({"timestamp": text, "service": text, "message": text, text: text}, colour=False)

    assert all(char.isprintable() or char in "\n\t\u200c\u200d" for char in line)
    assert all(part.startswith("    ") for part in line.split("\n")[1:])


def test_line_ends_of_a_stack_trace_are_kept() -> None:
    """Windows' line ends as well."""
    assert safe_lines("error\r\n  at x\n  at y") == "error\n      at x\n      at y"


@settings(max_examples=200)
@given(st.dictionaries(st.text(), st.text()))
def test_safe_json_is_the_same_value(value: dict[str, str]) -> None:
    """Escaped for the terminal, it still reads back equal, lone surrogates included."""
    shown = safe_json(json.dumps(value, ensure_ascii=False))

    assert json.loads(shown) == value
    assert all(char.isprintable() or char in "\u200c\u200d" for char in shown)


def test_colour_is_only_put_around_the_level() -> None:
    """With colour the same words stand there."""
    row = {"timestamp": "t", "level": "error", "service": "s", "message": "m", "a": 1}

    assert "\x1b" not in row_line(row, colour=False)
    assert row_line(row, colour=True).replace("\x1b[31m", "").replace("\x1b[0m", "").replace(
        "\x1b[2m", ""
    ) == row_line(row, colour=False)


def test_a_piped_table_is_plain_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """No frames, no colours; cells are made safe."""
    print_table("", ("name", "rows"), [["a\x1b", 1], ["long name", None]])

    assert capsys.readouterr().out == "name       rows\na\\x1b      1\nlong name\n"


def test_a_closed_stream_is_no_terminal() -> None:
    """isatty of a closed file raises; that must not end a command."""
    from node.render import is_terminal

    stream = io.StringIO()
    stream.close()

    assert not is_terminal(stream)


def test_sizes_for_people() -> None:
    """Powers of 1024."""
    assert [bytes_text(n) for n in (0, 1023, 1024, 5 << 20, 3 << 40)] == [
        "0 B", "1023 B", "1.0 KiB", "5.0 MiB", "3.0 TiB",
    ]  # fmt: skip
