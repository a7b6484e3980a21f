"""Where sending stands: gone on with when the file has grown, begun anew when it is another."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from node.send_state import StateFile, describe, file_identity, key_of, starting_point


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of logs, and a state folder of the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = tmp_path / "app.log"
    path.write_bytes(b"line one\nline two\n")
    return path


def saved(file: Path, **changes: object) -> StateFile:
    """A state file in which so much is done."""
    store = StateFile("cluster-1", file)
    now, _ = describe(file)
    store.save(replace(now, **changes))
    return store


def test_nothing_saved_starts_at_the_beginning(file: Path) -> None:
    """A first run."""
    now, head = describe(file)

    assert starting_point(StateFile("cluster-1", file).load(), now, head).offset == 0


def test_a_stopped_run_goes_on(file: Path) -> None:
    """From the offset below which all is acknowledged."""
    store = saved(file, offset=9, rows=1)
    now, head = describe(file)

    found = starting_point(store.load(), now, head)

    assert (found.offset, found.rows, found.complete) == (9, 1, False)


def test_a_file_that_has_grown_goes_on_behind_what_was_sent(file: Path) -> None:
    """A log that is appended to is complete no more."""
    store = saved(file, offset=18, rows=2, complete=True)
    with file.open("ab") as out:
        out.write(b"line three\n")
    now, head = describe(file)

    found = starting_point(store.load(), now, head)

    assert (found.offset, found.complete) == (18, False)


@pytest.mark.parametrize("content", [b"line 0ne\nline two\nand more\n", b"line one\n"])
def test_another_file_under_the_same_name_starts_anew(file: Path, content: bytes) -> None:
    """Rotated: other first bytes, or shorter than before."""
    store = saved(file, offset=18, rows=2, complete=True)
    file.write_bytes(content)
    now, head = describe(file)

    assert starting_point(store.load(), now, head).offset == 0


def test_an_unchanged_complete_file_is_complete(file: Path) -> None:
    """Nothing is left to send; a touched one is gone through again."""
    store = saved(file, offset=18, rows=2, complete=True)
    now, head = describe(file)
    assert starting_point(store.load(), now, head).complete

    os.utime(file, ns=(1, 1))
    now, head = describe(file)
    assert not starting_point(store.load(), now, head).complete


def test_states_belong_to_one_cluster(file: Path) -> None:
    """What one cluster has, another may lack."""
    saved(file, offset=9)

    assert StateFile("cluster-2", file).load() is None


def test_a_damaged_state_is_no_state(file: Path) -> None:
    """It is only a shortcut: without it all is sent again under the same keys."""
    store = saved(file, offset=9)
    (damaged,) = (file.parent / "state").rglob("*.json")
    damaged.write_text("{", encoding="utf-8")

    assert store.load() is None


def test_keys_differ_by_file_place_and_bytes() -> None:
    """And are the same for the same three."""
    identity = file_identity(Path("/var/log/app.log"))
    keys = [
        key_of(identity, 0, b"a"),
        key_of(identity, 1, b"a"),
        key_of(identity, 0, b"b"),
        key_of(file_identity(Path("/var/log/other.log")), 0, b"a"),
    ]

    assert len(set(keys)) == 4
    assert key_of(identity, 0, b"a") == keys[0]
