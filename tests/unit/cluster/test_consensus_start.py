"""Settings, secret and directory: every doubt is a numbered refusal."""

import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.consensus import ConsensusSettings, StartRefused
from cluster.consensus_start import check_settings, create_secret, load_secret, prepare
from tests.support.raft_follower import stop

PEERS = {"n0": "127.0.0.1:7173", "n1": "127.0.0.1:7183", "n2": "127.0.0.1:7193"}


def settings(root: Path, **changes: Any) -> ConsensusSettings:
    made = ConsensusSettings("n0", "c", PEERS["n0"], PEERS, root / "raft", bytes(32))
    return replace(made, **changes)


def refusal(given: ConsensusSettings) -> int:
    with pytest.raises(StartRefused) as caught:
        prepare(given, stop)
    return caught.value.exit_code


def test_the_defaults_fit_together(tmp_path: Path) -> None:
    """Also when a slower network multiplies them."""
    assert check_settings(settings(tmp_path)) == "127.0.0.1:7173"
    assert check_settings(settings(tmp_path, time_scale=4.0)) == "127.0.0.1:7173"


@pytest.mark.parametrize(
    "change",
    [
        {"secret": b"short"},
        {"secret": b"x" * 33},
        {"cluster_id": ""},
        {"node_id": "n9"},
        {"raft_address": "127.0.0.1:1"},
        {"peers": {"n0": PEERS["n0"], "n1": PEERS["n1"]}},
        {"peers": {"n0": PEERS["n0"], "n1": PEERS["n0"], "n2": PEERS["n2"]}},
        {"peers": {"n0": PEERS["n0"], "a b": PEERS["n1"], "n2": PEERS["n2"]}},
        {"peers": {"n0": PEERS["n0"], "n1": "nowhere", "n2": PEERS["n2"]}},
        {"bind_address": "0.0.0.0:7173"},
        {"bind_address": "8.8.8.8:7173"},
        {"election_min_seconds": 0.15},
        {"election_max_seconds": 0.2},
        {"leader_fallback_seconds": 0.05},
        {"connection_timeout_seconds": 0.4},
        {"keepalive_seconds": 1.0},
        {"time_scale": 0.0},
        {"compaction_entries": 1},
    ],
)
def test_settings_that_break_a_relation_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    """What PySyncObj asserts, and what it does not look at, as real errors with exit code 78."""
    assert refusal(settings(tmp_path, bootstrap=True, **change)) == 78


def test_a_public_address_needs_to_be_asked_for(tmp_path: Path) -> None:
    """The listener of PySyncObj binds 0.0.0.0 by default; ours never does by accident."""
    given = settings(tmp_path, bind_address="0.0.0.0:7173", allow_public_bind=True)

    assert check_settings(given) == "0.0.0.0:7173"


def test_another_pysyncobj_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wrapper relies on private names of exactly one version."""
    monkeypatch.setattr("cluster.consensus_start.version", lambda _: "0.3.18")

    assert refusal(settings(tmp_path)) == 78


def test_an_empty_directory_starts_only_when_told(tmp_path: Path) -> None:
    """A wiped voter must not vote; bootstrap and replace are two ways to say that it is new."""
    assert refusal(settings(tmp_path)) == 77
    for flag in ({"bootstrap": True}, {"replace": True}):
        given = settings(tmp_path, directory=tmp_path / str(flag), **flag)
        prepared = prepare(given, stop)
        prepared.journal.close_quietly()
        prepared.release()
        assert prepared.incarnation == 1


def test_each_start_has_a_number_of_its_own(tmp_path: Path) -> None:
    """The incarnation of request ids: it must never repeat on one directory."""
    numbers = []
    for _ in range(3):
        prepared = prepare(settings(tmp_path, bootstrap=True), stop)
        numbers.append(prepared.incarnation)
        prepared.journal.close_quietly()
        prepared.release()

    assert numbers == [1, 2, 3]


def test_a_directory_in_use_or_of_another_is_refused(tmp_path: Path) -> None:
    """flock, then identity."""
    first = prepare(settings(tmp_path, bootstrap=True), stop)
    assert refusal(settings(tmp_path)) == 77
    first.journal.close_quietly()
    first.release()
    identity = tmp_path / "raft" / "manager.json"
    good = identity.read_text()

    assert refusal(settings(tmp_path, cluster_id="other")) == 77
    identity.write_text(json.dumps({**json.loads(good), "node_id": "n1"}))
    assert refusal(settings(tmp_path)) == 77
    identity.write_text(good[:10])
    assert refusal(settings(tmp_path)) == 77
    identity.unlink()
    (tmp_path / "raft" / "state.dump").write_bytes(b"x")
    assert refusal(settings(tmp_path, bootstrap=True)) == 77


def test_a_damaged_journal_or_dump_is_refused_by_its_own_code(tmp_path: Path) -> None:
    """70 and 71; nothing is deleted or shortened."""
    prepared = prepare(settings(tmp_path, bootstrap=True), stop)
    prepared.journal.close_quietly()
    prepared.release()
    raft = tmp_path / "raft"

    (raft / "state.dump").write_bytes(b"QLRDUMP1 but not really a dump of anything")
    assert refusal(settings(tmp_path)) == 71
    (raft / "state.dump").unlink()
    (raft / "journal.sqlite").write_bytes(b"not a database, but long enough to be looked at" * 99)
    assert refusal(settings(tmp_path)) == 70
    (raft / "journal.sqlite").unlink()
    assert refusal(settings(tmp_path)) == 76


def test_a_refused_start_leaves_no_lock(tmp_path: Path) -> None:
    """The next attempt is judged by itself."""
    prepared = prepare(settings(tmp_path, bootstrap=True), stop)
    prepared.journal.close_quietly()
    prepared.release()

    assert refusal(settings(tmp_path, cluster_id="other")) == 77
    again = prepare(settings(tmp_path), stop)
    again.journal.close_quietly()
    again.release()


def test_the_secret_is_random_private_and_never_replaced(tmp_path: Path) -> None:
    """32 bytes, mode 0600; a file that others can read is refused."""
    path = tmp_path / "secret"
    secret = create_secret(path)

    assert load_secret(path) == secret
    assert len(secret) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        create_secret(path)
    path.chmod(0o640)
    with pytest.raises(StartRefused):
        load_secret(path)


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 64, None])
def test_a_secret_of_another_length_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """A phrase is not a key."""
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
        path.chmod(0o600)

    with pytest.raises(StartRefused):
        load_secret(path)


def test_the_secret_does_not_show_in_the_settings_text(tmp_path: Path) -> None:
    """Settings are logged."""
    assert "kkk" not in repr(settings(tmp_path, secret=b"k" * 32))
