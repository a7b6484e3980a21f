"""Rows as a function of their name: the same twice, told apart from any change, the same after JSON."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from chaos.corpus import GROUP_ROWS, Corpus, group_of, group_range, name_in, row_digest, split_name

CORPUS = Corpus(seed=3, start_micros=1_790_000_000_000_000)
#: What the servers add to a row.
ADDED = {"_id": "aa-0", "tenant": "default", "received_at": "2026-11-22T02:10:00Z", "seq": 4}


def test_a_row_is_a_function_of_seed_client_and_number() -> None:
    """The same again; another with any part changed."""
    row = CORPUS.row("agent1", 7, "svc")

    assert Corpus(3, CORPUS.start_micros).row("agent1", 7, "svc") == row
    others = [
        Corpus(4, CORPUS.start_micros).digest("agent1", 7, "svc"),
        CORPUS.digest("agent2", 7, "svc"),
        CORPUS.digest("agent1", 8, "svc"),
        CORPUS.digest("agent1", 7, "svd"),
    ]
    assert CORPUS.digest("agent1", 7, "svc") not in others


def test_what_a_server_adds_does_not_matter_and_what_it_changes_does() -> None:
    """Each field that was sent is in the digest; those that were not, are not."""
    row = CORPUS.row("agent1", 7, "svc")
    digest = CORPUS.digest("agent1", 7, "svc")

    assert row_digest(row | ADDED) == digest
    for name in row:
        assert row_digest({**row, name: "other"}) != digest, name
        assert row_digest({key: value for key, value in row.items() if key != name}) != digest


def test_the_same_moment_in_another_spelling_is_the_same_row() -> None:
    """A server may print a time with other digits; it may not move it by a microsecond."""
    row = {**CORPUS.row("agent1", 7, "svc"), "timestamp": "2026-11-22T02:10:00.120000Z"}
    same = {**row, "timestamp": "2026-11-22T03:10:00.12+01:00"}
    moved = {**row, "timestamp": "2026-11-22T02:10:00.120001Z"}

    assert row_digest(same) == row_digest(row)
    assert row_digest(moved) != row_digest(row)


@settings(max_examples=100)
@given(number=st.integers(1, 10**9), seed=st.integers(0, 10**9))
def test_rows_survive_json_and_stay_within_what_the_store_takes(number: int, seed: int) -> None:
    """64-bit integers, finite floats, text without lone surrogates, three hours at most."""
    corpus = Corpus(seed, CORPUS.start_micros)

    row = corpus.row("agent1", number, "svc")

    assert json.loads(json.dumps(row, ensure_ascii=False).encode()) == row
    assert 0 <= row["chaos_big"] < 2**63
    assert 0 < row["chaos_ratio"] < 1
    assert name_in(row) == f"agent1:{number}"
    assert row_digest(row) == corpus.digest("agent1", number, "svc")


def test_names_and_groups_lead_back() -> None:
    """The first and the last row of a group."""
    assert split_name("agent1:17") == ("agent1", 17)
    assert [split_name(text) for text in ("agent1", "agent1:x", ":1", "a:-1")] == [None] * 4
    assert group_range(group_of("agent1", 1)) == ("agent1", 1, GROUP_ROWS)
    assert group_range(group_of("agent1", GROUP_ROWS)) == ("agent1", 1, GROUP_ROWS)
    assert group_of("agent1", GROUP_ROWS + 1) == "agent1:1"


def test_a_row_without_a_name_cannot_be_taken_for_one_of_ours() -> None:
    """It is reported under its id."""
    assert name_in({"_id": "aa-0", "message": "x"}) == "?aa-0"
    assert split_name(name_in({"_id": "aa-0", "chaos_number": "7", "chaos_client": "a"})) is None
