"""The benchmark's rows: the same for the same numbers, in pieces that follow each other."""

import json

import pytest

from bench import corpus


@pytest.mark.parametrize("kind", corpus.KINDS)
def test_a_piece_is_the_same_each_time_and_unlike_the_next(kind: str) -> None:
    """A run that begins again in the middle sends what the first would have sent."""
    first = corpus.table_of(kind, 1_000, 3)

    assert corpus.table_of(kind, 1_000, 3).equals(first)
    assert not corpus.table_of(kind, 1_000, 4).equals(first)
    assert tuple(first.column_names) == corpus.COLUMNS[kind]


def test_pieces_follow_each_other_in_time() -> None:
    """Piece k starts where k pieces of a thousand rows a second end."""
    times = [corpus.table_of("slim", 1_000, piece)["timestamp"][0].as_py() for piece in (0, 1, 60)]

    assert times[0].startswith("2026-01-01T00:00:00.")
    assert times[1].startswith("2026-01-01T00:00:01.")
    assert times[2].startswith("2026-01-01T00:01:00.")


def test_one_row_of_a_piece_has_the_rare_word() -> None:
    """And the words of other pieces are not in it."""
    messages = corpus.table_of("slim", 2_000, 7)["message"].to_pylist()

    assert [corpus.rare_word(7) in one for one in messages].count(True) == 1
    assert not any(corpus.rare_word(8) in one for one in messages)
    assert corpus.rare_word(7) not in corpus.rare_word(70)


def test_a_batch_is_its_table_as_json_lines_and_as_csv() -> None:
    """What peers are sent by other ways than JSON is the same."""
    bodies = list(corpus.cut(corpus.table_of("rich", 250, 0), 100))

    assert [body.rows for body in bodies] == [100, 100, 50]
    lines = [json.loads(line) for line in bodies[1].json.splitlines()]
    assert lines == bodies[1].table.to_pylist()
    assert len(bodies[1].csv().splitlines()) == 100
    assert bodies[1].csv().splitlines()[0].decode().startswith(f'"{lines[0]["timestamp"]}"')
