"""The hint log: bounded, oldest out first, and whole up to wherever it was torn."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from records.hint import Hint
from storage import hints as hints_module
from storage.hints import FILE_BYTES, HintLog, entries_in, folder_name, read_hints, targets_of

NODE = "node2"


def hint(number: int, entries: int = 2, target: str = NODE) -> Hint:
    """A hint that differs from all others."""
    ids = b"".join((number * 1000 + n).to_bytes(16, "big") for n in range(entries))
    return Hint(target, 1, number, ((number % 32, ids),))


def drained(log: HintLog) -> list[Hint]:
    """All hints in order; the log is empty after it."""
    found: list[Hint] = []
    while (batch := log.oldest()) is not None:
        found += batch.hints
        log.remove(batch.sequence)
    return found


def test_gives_back_what_was_written_oldest_first(tmp_path: Path) -> None:
    """Over several files, and after a restart; delivered files are gone from the disk."""
    log = HintLog(tmp_path, NODE)
    wanted = [hint(n, 400) for n in range(100)]
    log.append(wanted[:50], 1.0)
    log.sync()
    log.close()
    again = HintLog(tmp_path, NODE)
    again.append(wanted[50:], 2.0)

    assert len(list(tmp_path.rglob("*.hints"))) > 2
    assert again.size > 100 * 400 * 16 > FILE_BYTES
    assert drained(again) == wanted
    assert again.size == 0
    assert not list(tmp_path.rglob("*.hints"))
    assert targets_of(tmp_path) == {NODE: tmp_path / folder_name(NODE)}


def test_what_comes_while_a_file_is_delivered_goes_to_another(tmp_path: Path) -> None:
    """The delivered file is removed; the hint that came meanwhile stays."""
    log = HintLog(tmp_path, NODE)
    log.append([hint(1)], 1.0)
    batch = log.oldest()
    log.append([hint(2)], 1.0)
    assert batch is not None
    log.remove(batch.sequence)

    assert batch.hints == (hint(1),)
    assert drained(log) == [hint(2)]


def test_the_oldest_go_first_when_there_are_too_many_bytes(tmp_path: Path) -> None:
    """What is kept is the newest, and it fits."""
    log = HintLog(tmp_path, NODE)
    wanted = [hint(n, 1000) for n in range(64)]
    log.append(wanted, 1.0)

    dropped = log.trim(2 * FILE_BYTES, 0.0)

    assert log.size <= 2 * FILE_BYTES
    kept = drained(log)
    assert kept
    assert [one for batch in dropped for one in batch.hints] + kept == wanted
    assert entries_in(dropped) == 1000 * (64 - len(kept)) > 0


def test_old_files_are_dropped_by_the_age_of_their_newest_hint(tmp_path: Path) -> None:
    """Two files: the one written before the limit goes, the other stays."""
    log = HintLog(tmp_path, NODE)
    log.append([hint(1)], 10.0)
    assert log.oldest()  # ends the file
    log.append([hint(2)], 20.0)

    assert log.trim(1 << 30, 10.0) == []
    assert [batch.hints for batch in log.trim(1 << 30, 15.0)] == [(hint(1),)]
    assert drained(log) == [hint(2)]


def test_files_that_vanished_hold_nothing(tmp_path: Path) -> None:
    """An operator may delete all hints under a running node."""
    log = HintLog(tmp_path, NODE)
    log.append([hint(1)], 1.0)
    for path in tmp_path.rglob("*.hints"):
        path.unlink()

    assert drained(log) == []
    log.append([hint(2)], 1.0)
    assert drained(log) == [hint(2)]


def test_every_file_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One append over several files: the ones that are full as well."""
    real, synced = hints_module.os.fdatasync, []
    log = HintLog(tmp_path, NODE)

    def note(handle: int) -> None:
        synced.append(handle)
        real(handle)

    monkeypatch.setattr(hints_module.os, "fdatasync", note)
    log.append([hint(n, 1000) for n in range(40)], 1.0)
    log.sync()

    assert len(synced) == len(list(tmp_path.rglob("*.hints"))) > 2


def test_a_failed_sync_ends_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sync is never repeated on the same file; the next hint goes to another one."""
    log = HintLog(tmp_path, NODE)
    log.append([hint(1)], 1.0)

    def fail(_: int) -> None:
        raise OSError(5, "I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(hints_module.os, "fdatasync", fail)
        with pytest.raises(OSError, match="I/O"):
            log.sync()
    log.append([hint(2)], 1.0)

    assert len(list(tmp_path.rglob("*.hints"))) == 2
    assert drained(log) == [hint(1), hint(2)]


def test_names_are_never_paths(tmp_path: Path) -> None:
    """A target called `../x` stays below the folder of hints."""
    log = HintLog(tmp_path / "hints", "../x")
    log.append([hint(1, target="../x")], 1.0)

    assert [path.name for path in tmp_path.iterdir()] == ["hints"]
    assert targets_of(tmp_path / "hints").keys() == {"../x"}


def written(directory: Path, numbers: list[int]) -> tuple[bytes, list[Hint]]:
    """The bytes of one file of hints, and what is in it."""
    log = HintLog(directory, NODE, salt=7)
    wanted = [hint(n, 1 + n % 5) for n in numbers]
    for one in wanted:
        log.append([one], 1.0)
        log.sync()
    log.close()
    return next(directory.rglob("*.hints")).read_bytes(), wanted


def test_any_cut_leaves_a_prefix(tmp_path: Path) -> None:
    """Cut at each byte, as a kill or a power cut may leave it: whole hints, in order, nothing else."""
    data, wanted = written(tmp_path, list(range(6)))
    counts = set()
    for end in range(len(data) + 1):
        found, _ = read_hints(data[:end], 1, NODE)
        assert found == wanted[: len(found)]
        counts.add(len(found))
    assert counts == set(range(7))


def test_any_flipped_byte_loses_one_hint_and_invents_none(tmp_path: Path) -> None:
    """Each byte changed in turn: the others are read, what cannot be is counted."""
    data, wanted = written(tmp_path, list(range(4)))
    for at in range(len(data)):
        found, damaged = read_hints(data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :], 1, NODE)
        assert len(found) >= len(wanted) - 1
        assert all(one in wanted for one in found)
        assert damaged or found == wanted or found == wanted[:-1]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.integers(1, 40)),
            st.tuples(st.just("deliver"), st.just(0)),
            st.tuples(st.just("cut"), st.integers(0, 4000)),
            st.tuples(st.just("trim"), st.integers(200, 4000)),
        ),
        max_size=20,
    )
)
def test_is_a_queue_that_may_lose_but_never_invents_or_reorders(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """Against a list: appends, deliveries, kills that tear the newest file, and trims, in any order.

    Unless something was cut or trimmed, nothing may be missing.
    """
    directory = tmp_path_factory.mktemp("hints")
    log, number, model, lost = HintLog(directory, NODE, salt=1), 0, [], False
    for what, amount in steps:
        if what == "append":
            made = [hint(n) for n in range(number, number + amount)]
            number += amount
            model += made
            log.append(made, 1.0)
        elif what == "deliver":
            batch = log.oldest()
            if batch is not None:
                log.remove(batch.sequence)
                assert lost or list(batch.hints) == model[: len(batch.hints)]
                model = [one for one in model if one not in batch.hints]
        elif what == "trim":
            model_lost = [one for batch in log.trim(amount, 0.0) for one in batch.hints]
            model = [one for one in model if one not in model_lost]
            assert log.size <= amount
        else:
            log.close()
            files = sorted(directory.rglob("*.hints"))
            if files:
                data = files[-1].read_bytes()
                files[-1].write_bytes(data[: max(0, len(data) - amount)])
                lost = lost or amount > 0
            log = HintLog(directory, NODE, salt=2)
    found = drained(log)
    rest = iter(model)
    assert all(one in rest for one in found)  # in order, each once, none from nowhere
    assert lost or found == model


def test_hints_for_another_node_are_not_delivered(tmp_path: Path) -> None:
    """A file that was moved into the folder of another target names nothing there."""
    data, _ = written(tmp_path, [1, 2])

    assert read_hints(data, 1, "node3") == ([], 2)
    assert read_hints(data, 2, NODE)[0] == []  # under another name of its own


def test_a_full_disk_leaves_no_files_behind_and_what_got_through_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a record is written, then ENOSPC, again and again; the bounds know of each byte on disk."""
    log, write = HintLog(tmp_path, NODE), os.write
    log.append([hint(1)], 1.0)

    def full(handle: int, data: bytes) -> int:
        write(handle, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(hints_module.os, "write", full)
    for number in range(5):
        with pytest.raises(OSError, match="no space"):
            log.append([hint(number)], 1.0)
    monkeypatch.setattr(hints_module.os, "write", write)

    files = list(tmp_path.rglob("*.hints"))
    assert len(files) == 1
    assert log.size == files[0].stat().st_size
    log.append([hint(2)], 2.0)
    assert drained(log) == [hint(1), hint(2)]
