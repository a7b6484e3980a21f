"""DurableJournal: what was promised is found again, or the process does not start."""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.consensus_journal import DurableJournal, JournalCorrupt
from tests.support.raft_follower import Stopped, stop


def open_journal(path: Path, **options: Any) -> DurableJournal:
    return DurableJournal(path / "journal.sqlite", stop=stop, **options)


def filled(path: Path, last: int = 10) -> DurableJournal:
    """Entries 1..last in one transaction, term 3, vote for n2."""
    journal = open_journal(path)
    for index in range(1, last + 1):
        journal.add(b"command %d" % index, index, 2)
    journal.setCurrentTerm(3, "n2")
    return journal


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[DurableJournal]:
    made = filled(tmp_path)
    yield made
    made.close_quietly()


def reopened(journal: DurableJournal) -> DurableJournal:
    """Closed without a commit, as by kill -9, and opened again."""
    journal.close_quietly()
    return open_journal(journal.path.parent)


def test_entries_term_and_vote_are_found_again(journal: DurableJournal) -> None:
    """The same tuples that PySyncObj compares, in order."""
    again = reopened(journal)

    assert again[:] == [(b"command %d" % i, i, 2) for i in range(1, 11)]
    assert (again.getCurrentTerm(), again.getVotedForNodeId()) == (3, "n2")
    again.close_quietly()


def test_entries_that_were_not_synced_are_not_there_after_a_kill(journal: DurableJournal) -> None:
    """Nobody was promised them; what was synced before is complete."""
    journal.add(b"late", 11, 3)

    again = reopened(journal)

    assert len(again) == 10
    again.close_quietly()


def test_many_adds_are_one_fsync(journal: DurableJournal) -> None:
    """Group commit: a sync with nothing pending costs nothing."""
    before = journal.fsyncs

    for index in range(11, 111):
        journal.add(b"x", index, 3)
    journal.sync()
    journal.sync()

    assert journal.fsyncs - before == 1


def test_the_database_syncs_each_commit(tmp_path: Path) -> None:
    """SQLite says so itself: with `synchronous` below FULL (2) a power cut takes commits of a WAL."""
    made: list[sqlite3.Connection] = []

    def connect(path: str) -> sqlite3.Connection:
        made.append(sqlite3.connect(path, isolation_level=None, check_same_thread=False))
        return made[0]

    open_journal(tmp_path, connect=connect)
    asked = {
        name: made[0].execute(f"PRAGMA {name}").fetchone()
        for name in ("synchronous", "journal_mode")
    }
    assert asked == {"synchronous": (2,), "journal_mode": ("wal",)}


def test_an_entry_that_does_not_follow_ends_the_process(journal: DurableJournal) -> None:
    """A gap would be found at the next start; it must not be written."""
    with pytest.raises(Stopped) as caught:
        journal.add(b"x", 12, 3)

    assert caught.value.code == 72


def test_trimming_is_one_transaction_after_the_dumps_directory_is_synced(tmp_path: Path) -> None:
    """H, B: the dump's name is durable before the entries it stands for are gone."""
    steps: list[str] = []
    journal = filled(tmp_path)
    journal.close_quietly()
    journal = open_journal(tmp_path, sync_dump_directory=lambda: steps.append("directory"))
    fsyncs = journal.fsyncs

    journal.deleteEntriesTo(4)
    after_trim = list(steps)
    journal.clear()
    journal.add(b"dump", 20, 3)

    assert after_trim == ["directory"]
    assert steps == ["directory", "directory"]
    assert journal.fsyncs - fsyncs == 1
    again = reopened(journal)
    assert [index for _, index, _ in again[:]] == list(range(5, 11))  # the clear was not synced
    again.close_quietly()


def test_a_failed_directory_sync_ends_the_process_before_the_trim(tmp_path: Path) -> None:
    """H: without a durable dump nothing may be trimmed."""

    def fail() -> None:
        raise OSError(5, "I/O error")

    filled(tmp_path).close_quietly()
    journal = open_journal(tmp_path, sync_dump_directory=fail)

    with pytest.raises(Stopped) as caught:
        journal.deleteEntriesTo(4)

    assert caught.value.code == 70
    again = reopened(journal)
    assert len(again) == 10
    again.close_quietly()


def test_cutting_applied_entries_ends_the_process(journal: DurableJournal) -> None:
    """A conflict at or below the applied index is not a conflict, it is the end."""
    journal.applied = lambda: 5

    with pytest.raises(Stopped) as caught:
        journal.deleteEntriesFrom(4)
    journal.deleteEntriesFrom(5)

    assert caught.value.code == 72
    assert journal[-1][1] == 5


def test_the_commit_index_is_a_hint_within_the_log(journal: DurableJournal) -> None:
    """Saved by the timer, clamped when the tail goes."""
    journal.setRaftCommitIndex(9)
    journal.onOneSecondTimer()
    journal.deleteEntriesFrom(6)
    journal.sync()

    again = reopened(journal)

    assert again.getRaftCommitIndex() == 6
    again.close_quietly()


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "INSERT INTO log", "COMMIT", "DELETE"])
def test_any_database_error_ends_the_process(tmp_path: Path, statement: str) -> None:
    """T6, E: full disk or I/O error, at whichever statement. Never retried."""
    failing: list[str] = []

    class Failing:
        def __init__(self, path: str) -> None:
            self.inner = sqlite3.connect(path, isolation_level=None)

        def execute(self, sql: str, *args: Any) -> Any:
            if failing and sql.startswith(statement):
                raise sqlite3.OperationalError("database or disk is full")
            return self.inner.execute(sql, *args)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    journal = open_journal(tmp_path, connect=Failing)
    for index in range(1, 5):
        journal.add(b"x", index, 1)
    journal.sync()
    failing.append(statement)

    def work() -> None:
        journal.add(b"x", 5, 1)
        journal.deleteEntriesTo(2)
        journal.sync()

    with pytest.raises(Stopped) as caught:
        work()

    assert caught.value.code == 70
    journal.close_quietly()


# -- T5: damage ------------------------------------------------------------------------------------


def outcome(path: Path) -> Any:
    """What a start finds: the entries with term and vote, or the error's kind."""
    try:
        journal = open_journal(path)
    except (JournalCorrupt, sqlite3.Error) as error:
        return type(error)
    found = (journal[:], journal.getCurrentTerm(), journal.getVotedForNodeId())
    journal.close_quietly()
    return found


def damaged_copies(source: Path, target: Path, name: str, step: int) -> Iterator[tuple[str, Path]]:
    """Copies of a directory with one bit of `name` flipped, or its end cut off."""
    files = {path.name: path.read_bytes() for path in source.iterdir()}
    good = files[name]
    for place in range(0, len(good), step):
        flipped = bytearray(good)
        flipped[place] ^= 1 << (place % 8)
        for label, data in (("flip", bytes(flipped)), ("cut", good[:place])):
            for other, content in files.items():
                (target / other).write_bytes(data if other == name else content)
            yield f"{label} {name} at {place} of {len(good)}", target
            for path in target.iterdir():
                path.unlink()


@pytest.mark.parametrize("name", ["journal.sqlite-wal", "journal.sqlite", "journal.sqlite.guard"])
def test_a_flipped_or_cut_file_is_refused_or_harmless_never_a_shorter_log(
    tmp_path: Path, name: str
) -> None:
    """T5, E: SQLite drops a damaged WAL frame and all after it silently; the guard notices.

    The journal is left as by kill -9: all commits are still in the WAL for one half of the cases,
    all in the main file for the other.
    """
    living, target = tmp_path / "living", tmp_path / "copy"
    living.mkdir()
    target.mkdir()
    journal = filled(living, last=40)
    for index in range(41, 60):
        journal.add(b"x" * 200, index, 3)
        journal.sync()
    if name == "journal.sqlite":
        journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    expected = (journal[:], 3, "n2")
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for path in living.iterdir():
        (snapshot / path.name).write_bytes(path.read_bytes())
    journal.close_quietly()
    size = (snapshot / name).stat().st_size
    results = []

    for label, copy in damaged_copies(snapshot, target, name, max(1, size // 150)):
        found = outcome(copy)
        results.append(found)
        assert found == expected or isinstance(found, type), label

    assert outcome(snapshot) == expected
    assert sum(isinstance(found, type) for found in results) > len(results) / 4


def test_a_lost_wal_is_noticed(tmp_path: Path) -> None:
    """Deleting the WAL rolls the database back to an older, consistent, shorter state."""
    journal = filled(tmp_path)
    journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for index in range(11, 20):
        journal.add(b"x", index, 3)
        journal.sync()
    files = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    journal.close_quietly()
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, data in files.items():
        if not name.endswith("-wal"):
            (copy / name).write_bytes(data)

    with pytest.raises(JournalCorrupt, match="was committed"):
        open_journal(copy)


def test_the_guard_is_on_disk_before_the_journal_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut must not leave an empty guard beside a full database: that is what a lost one looks like.

    Found by the scenario power-cut: the guard had never been synced, and the node refused to start.
    """
    synced: list[tuple[str, int]] = []
    real = os.fsync

    def noting(handle: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        synced.append((path.name, os.fstat(handle).st_size))
        real(handle)

    monkeypatch.setattr(os, "fsync", noting)
    first = open_journal(tmp_path)
    at_birth = list(synced)
    first.close_quietly()
    synced.clear()
    open_journal(tmp_path).close_quietly()  # as left by a version that did not

    assert [size for name, size in at_birth if name == "journal.sqlite.guard"] == [20]
    assert [size for name, size in synced if name == "journal.sqlite.guard"] == [20]


def test_a_lost_guard_is_noticed(journal: DurableJournal) -> None:
    """Without it a rolled-back database could not be told from a good one."""
    journal.close_quietly()
    journal.path.with_name("journal.sqlite.guard").unlink()

    with pytest.raises(JournalCorrupt, match="guard"):
        open_journal(journal.path.parent)


def test_a_row_changed_by_hand_is_noticed(journal: DurableJournal) -> None:
    """Row and meta checksums stand against what SQLite itself would accept."""
    path = journal.path
    journal.close_quietly()
    for statement in (
        "UPDATE log SET cmd = x'00' WHERE idx = 5",
        "UPDATE log SET term = 9 WHERE idx = 5",
        "DELETE FROM log WHERE idx = 5",
        "DELETE FROM log WHERE idx = 10",
        "UPDATE meta SET vote = 'n1'",
        "UPDATE meta SET term = 1",
        "DELETE FROM meta",
    ):
        good = path.read_bytes()
        database = sqlite3.connect(path)
        database.execute(statement)
        database.commit()
        database.close()
        with pytest.raises(JournalCorrupt):
            open_journal(path.parent)
        for leftover in path.parent.glob("journal.sqlite-*"):
            leftover.unlink()
        path.write_bytes(good)
    open_journal(path.parent).close_quietly()
