"""Files as pieces: every row once, the same cuts each time, damage said and not hidden."""

import bz2
import csv
import gzip
import io
import json
import lzma
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node import send_source
from node.cli_errors import CliError
from node.send_source import Format, Piece, Pieces, Source, sniff

ROWS = [{"n": number, "text": 'a "quoted" ]}{[ text\n é'} for number in range(1000)]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of 100 rows or 8 KiB, read 1 KiB at a time, so that a thousand rows make many."""
    monkeypatch.setattr(send_source, "PIECE_ROWS", 100)
    monkeypatch.setattr(send_source, "PIECE_BYTES", 8 << 10)
    monkeypatch.setattr(send_source, "READ_BYTES", 1 << 10)
    monkeypatch.setattr(send_source, "SNIFF_BYTES", 1 << 10)
    monkeypatch.setattr(send_source, "ROW_BYTES_MAX", 32 << 10)


def cut(
    path: Path, data: bytes, format: Format | None = None, offset: int = 0, row: int = 1
) -> list[Piece]:
    """The pieces of a file with these bytes."""
    path.write_bytes(data)
    source = Source(str(path))
    try:
        return list(Pieces(source, format, offset, row))
    finally:
        source.close()


def values(pieces: list[Piece]) -> list[object]:
    """The JSON values of pieces of lines."""
    return [json.loads(line) for piece in pieces for line in piece.body.splitlines()]


def lines_of(rows: list[dict[str, object]]) -> bytes:
    """JSON lines."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gzip", "zstd"]
)
def test_lines_arrive_whole_in_pieces_that_join(tmp_path: Path, pack) -> None:
    """Pieces tile the file by offset and by row; compressed files have the same pieces."""
    data = lines_of(ROWS)

    pieces = cut(tmp_path / "a.jsonl", pack(data))

    assert b"".join(piece.body for piece in pieces) == data
    assert [piece.offset for piece in pieces] == [0, *(piece.end for piece in pieces[:-1])]
    assert pieces[-1].end == len(data)
    assert [piece.first_row for piece in pieces] == [
        1 + sum(piece.rows for piece in pieces[:i]) for i in range(len(pieces))
    ]
    assert all(piece.rows <= 100 and len(piece.body) <= 8 << 10 for piece in pieces)


@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_becomes_lines(tmp_path: Path, indent: int | None) -> None:
    """Brackets, quotes and line ends inside of texts do not mislead; so with indented files."""
    pieces = cut(tmp_path / "a.json", json.dumps(ROWS, indent=indent).encode())

    assert values(pieces) == ROWS
    assert sum(piece.rows for piece in pieces) == len(ROWS)


def test_objects_one_after_the_other_become_lines(tmp_path: Path) -> None:
    """As `jq` prints them."""
    data = b"\n".join(json.dumps(row, indent=4).encode() for row in ROWS)

    assert values(cut(tmp_path / "a.json", data)) == ROWS


@pytest.mark.parametrize("kind", ["lines", "array", "csv"])
def test_going_on_at_an_offset_gives_the_same_pieces(tmp_path: Path, kind: str) -> None:
    """What a resumed run sends has the same bytes at the same offsets, hence the same keys."""
    data = {
        "lines": lines_of(ROWS),
        "array": json.dumps(ROWS).encode(),
        "csv": b"a,b\n" + b"".join(b'%d,"x ""y"",\nz"\n' % n for n in range(1000)),
    }[kind]
    whole = cut(tmp_path / "a", data)

    for done in range(1, len(whole)):
        last = whole[done - 1]
        rest = cut(tmp_path / "a", data, offset=last.end, row=last.first_row + last.rows)
        assert rest == whole[done:]


def test_csv_is_cut_between_records_and_keeps_its_header(tmp_path: Path) -> None:
    """A line end inside quotes ends no record; each piece is a CSV of its own."""
    records = [{"a": str(number), "b": 'x "y",\nz' * (number % 3)} for number in range(1000)]
    text = io.StringIO()
    writer = csv.DictWriter(text, ["a", "b"])
    writer.writeheader()
    writer.writerows(records)

    pieces = cut(tmp_path / "a.csv", text.getvalue().encode())

    found = [row for piece in pieces for row in csv.DictReader(io.StringIO(piece.body.decode()))]
    assert found == records
    assert sum(piece.rows for piece in pieces) == 1000
    assert len(pieces) > 1


def test_blank_lines_keep_the_numbers_of_the_others(tmp_path: Path) -> None:
    """The server counts rows, a user counts lines."""
    (piece,) = cut(tmp_path / "a.log", b"one\n\n \nfour\r\n\r\nsix")

    assert [piece.row_in_file(row) for row in (1, 2, 3)] == [1, 4, 6]


def test_an_endless_line_is_passed_over_and_said(tmp_path: Path) -> None:
    """A row of 100 KiB (limit here 32 KiB) costs that row alone."""
    pieces = cut(tmp_path / "a.log", b"first\n" + b"x" * (100 << 10) + b"\nlast\n")

    assert [(piece.body, piece.skipped) for piece in pieces] == [
        (b"first\n", False), (b"", True), (b"last\n", False),
    ]  # fmt: skip
    assert [piece.first_row for piece in pieces] == [1, 2, 3]


def test_a_truncated_gzip_is_an_error_with_advice(tmp_path: Path) -> None:
    """What could be read is sent, then the damage is said."""
    data = gzip.compress(lines_of(ROWS))

    with pytest.raises(CliError, match="cannot be decompressed to its end"):
        cut(tmp_path / "a.gz", data[: len(data) // 2])


@pytest.mark.parametrize(
    "data",
    [
        bz2.compress(b'{"message":"x"}\n'),
        lzma.compress(b'{"message":"x"}\n'),
        '{"message":"x"}\n'.encode("utf-16"),
        gzip.compress(bz2.compress(b"x")),
        b"rows\0of\nsomething",
    ],
    ids=["bz2", "xz", "utf-16", "bz2 in gzip", "nul"],
)
def test_what_is_no_text_is_refused_unless_asked_for(tmp_path: Path, data: bytes) -> None:
    """Another compression or binary data would be stored line by line; `--format plain` insists."""
    with pytest.raises(CliError, match="no text"):
        cut(tmp_path / "x", data)
    assert cut(tmp_path / "x", data, Format.PLAIN)


def test_a_torn_array_hands_its_torn_end_to_the_server(tmp_path: Path) -> None:
    """The last object is cut off: it becomes a row, which the server refuses with its number."""
    (piece,) = cut(tmp_path / "a.json", b'[{"a": 1}, 5, {"b": {"c": "x')

    assert piece.body.splitlines() == [b'{"a": 1}', b"5", b'{"b": {"c": "x']
    assert piece.rows == 3


@pytest.mark.parametrize(
    ("head", "name", "expected"),
    [
        (b'{"a":1}\n{"a":2}\n', "x", Format.LINES),
        (b'{"a":1}', "x", Format.LINES),
        (b'{"a": broken}\n{"a":2}\n', "x", Format.LINES),
        (b'\xef\xbb\xbf {"a":1}\n', "x", Format.LINES),
        (b'{\n  "a": 1\n}\n', "x", Format.OBJECTS),
        (b'[\n{"a":1}]', "x", Format.ARRAY),
        (b"[]", "x", Format.ARRAY),
        (b"[2026-01-01] started", "x", Format.PLAIN),
        (b"timestamp,path,userAgent\n2026,/,x\n", "x", Format.CSV),
        (b"a b c,d e f: g\n", "x.csv.gz", Format.CSV),
        (b"10.0.0.1 - - [x] GET / HTTP\n", "access.log", Format.PLAIN),
        (b"", "x", Format.PLAIN),
    ],
)
def test_formats_are_told_by_their_first_bytes(head: bytes, name: str, expected: Format) -> None:
    """A name only decides for CSV."""
    assert sniff(head, name) is expected


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.dictionaries(st.text(max_size=5), st.text(max_size=30) | st.integers(), min_size=1),
        min_size=1,
        max_size=30,
    ),
    st.sampled_from([None, 1, 3]),
)
def test_any_array_of_objects_survives(tmp_path: Path, rows, indent) -> None:
    """Whatever stands in keys and texts."""
    text = json.dumps(rows, indent=indent, ensure_ascii=False).encode("utf-8", "surrogatepass")

    assert values(cut(tmp_path / "a", text)) == json.loads(text)
