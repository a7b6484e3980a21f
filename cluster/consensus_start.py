"""The start of a manager: whose directory this is, and whether its files may be believed.

In this order: settings and interpreter, the lock, the identity, the journal, the dump, their
alignment. Any doubt refuses the start with a numbered exit. A directory without `manager.json` is a
voter without memory: it could help elect someone who lacks what the lost disk had acknowledged, so
it starts only when told that this is a new cluster (`bootstrap`) or a new id (`replace`).

A refused start is repaired by copying a peer's verified dump, or by replacing the manager under a
new id; never by deleting files.
"""

import contextlib
import fcntl
import ipaddress
import json
import os
import re
import sqlite3
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cluster.consensus import ConsensusSettings
from cluster.consensus_dump import (
    Dump,
    DumpDamaged,
    align,
    carry_out,
    read_dump,
    sync_file_and_directory,
)
from cluster.consensus_failstop import (
    EXIT_CONFIG,
    EXIT_DUMP,
    EXIT_IDENTITY,
    EXIT_JOURNAL,
    EXIT_NO_DUMP,
    FailStop,
    fail_stop,
    refuse,
)
from cluster.consensus_journal import DurableJournal, JournalCorrupt
from cluster.consensus_wire import resolve_now

PYSYNCOBJ_VERSION = "0.3.17"
SECRET_BYTES = 32
MANAGER_FILE, LOCK_FILE = "manager.json", "lock"
JOURNAL_FILE, DUMP_FILE = "journal.sqlite", "state.dump"
_NODE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\s]+):\d{1,5}")


@dataclass(slots=True)
class Prepared:
    """A directory that may be started from. Owns the lock and the journal until closed."""

    lock: int
    journal: DurableJournal
    dump: Dump | None
    #: Number of this start, from 1; the incarnation of this manager's request ids.
    incarnation: int
    bind_address: str

    def release(self) -> None:
        """Lets another process have the directory."""
        os.close(self.lock)


def create_secret(path: Path) -> bytes:
    """Writes 32 random bytes to a new file of mode 0600 and returns them.

    Raises:
        FileExistsError: a secret is never replaced.
    """
    secret = os.urandom(SECRET_BYTES)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(handle, secret)
        os.fsync(handle)
    finally:
        os.close(handle)
    return secret


def load_secret(path: Path) -> bytes:
    """The group's secret from a file that only its owner may read.

    Raises:
        StartRefused: readable by others, missing, or not 32 bytes.
    """
    try:
        if path.stat().st_mode & 0o077:
            refuse(EXIT_CONFIG, f"{path} must have mode 0600")
        secret = path.read_bytes()
    except OSError as error:
        refuse(EXIT_CONFIG, f"{path}: {error}")
    if len(secret) != SECRET_BYTES:
        refuse(EXIT_CONFIG, f"{path} must hold exactly {SECRET_BYTES} bytes, it has {len(secret)}")
    return secret


# -- settings ------------------------------------------------------------------------------------


def check_settings(settings: ConsensusSettings) -> str:
    """Refuses what PySyncObj would only assert; returns the address to bind.

    Raises:
        StartRefused: with what is wrong.
    """
    if sys.flags.optimize:
        refuse(EXIT_CONFIG, "never run with -O: assertions guard the encrypted channel")
    if version("pysyncobj") != PYSYNCOBJ_VERSION:
        refuse(EXIT_CONFIG, f"pysyncobj must be {PYSYNCOBJ_VERSION}, it is {version('pysyncobj')}")
    for name, wrong in _wrong_settings(settings).items():
        if wrong:
            refuse(EXIT_CONFIG, name)
    return _bind_address(settings)


def _wrong_settings(s: ConsensusSettings) -> dict[str, bool]:
    addresses = list(s.peers.values())
    times = (
        s.time_scale,
        s.append_period_seconds,
        s.tick_seconds,
        s.keepalive_seconds,
        s.attempt_seconds,
        s.watchdog_seconds,
        s.connection_retry_seconds,
        s.compaction_seconds,
    )
    return {
        f"the secret must have exactly {SECRET_BYTES} bytes": len(s.secret) != SECRET_BYTES,
        "a node id is 1 to 64 letters, digits, '.', '_' or '-'": not all(
            _NODE_ID.fullmatch(node) for node in s.peers
        ),
        "cluster_id is empty": not s.cluster_id,
        "peers must hold this node with its raft_address": s.peers.get(s.node_id) != s.raft_address,
        "a group has 1, 3 or 5 managers": len(s.peers) not in (1, 3, 5),
        "two managers have the same address": len(set(addresses)) != len(addresses),
        "an address is host:port": not all(_ADDRESS.fullmatch(a) for a in addresses),
        "all times must be positive": min(times) <= 0,
        "election_min must exceed three append periods": s.election_min_seconds
        <= 3 * s.append_period_seconds,
        "election_max must exceed election_min": s.election_max_seconds <= s.election_min_seconds,
        "leader_fallback must exceed the append period": s.leader_fallback_seconds
        <= s.append_period_seconds,
        "connection_timeout must be at least election_max": s.connection_timeout_seconds
        < s.election_max_seconds,
        "keepalive must be below half the connection timeout": s.keepalive_seconds
        >= s.connection_timeout_seconds / 2,
        "compaction_entries must be at least 2": s.compaction_entries < 2,
    }


def _bind_address(settings: ConsensusSettings) -> str:
    host, port = (settings.bind_address or settings.raft_address).rsplit(":", 1)
    try:
        address = ipaddress.ip_address(resolve_now(host))
    except (OSError, ValueError) as error:
        refuse(EXIT_CONFIG, f"bind address {host}: {error}")
    public = address.is_unspecified or not (address.is_private or address.is_loopback)
    if public and not settings.allow_public_bind:
        refuse(EXIT_CONFIG, f"bind address {address} is not private")
    return f"{address}:{port}"


# -- directory -----------------------------------------------------------------------------------


def prepare(settings: ConsensusSettings, stop: FailStop = fail_stop) -> Prepared:
    """Steps 1 to 4 of the start order. `stop` is what the journal calls later.

    Raises:
        StartRefused: with the exit code of the step that failed.
    """
    bind_address = check_settings(settings)
    directory = settings.directory
    with contextlib.ExitStack() as undo:
        lock = _lock(settings)
        undo.callback(os.close, lock)
        starts = _read_identity(settings)
        journal = _open_journal(settings, stop)
        undo.callback(journal.close_quietly)
        if starts == 0 and (len(journal) or journal.getCurrentTerm()):
            refuse(EXIT_IDENTITY, f"{directory} has a journal but no {MANAGER_FILE}")
        dump = _open_dump(directory / DUMP_FILE)
        verdict = align(dump, journal)
        if verdict.exit_code:
            refuse(verdict.exit_code, verdict.reason)
        try:
            carry_out(verdict, dump, journal)
            _write_identity(settings, starts + 1)
        except OSError as error:
            refuse(EXIT_JOURNAL, f"{directory}: {error}")
        undo.pop_all()
    return Prepared(lock, journal, dump, starts + 1, bind_address)


def _lock(settings: ConsensusSettings) -> int:
    fresh_allowed = settings.bootstrap or settings.replace
    try:
        if fresh_allowed:
            settings.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        handle = os.open(settings.directory / LOCK_FILE, flags, 0o600)
    except OSError as error:
        refuse(EXIT_IDENTITY, f"raft directory: {error}")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        refuse(EXIT_IDENTITY, f"{settings.directory} is in use by another process")
    return handle


def _read_identity(settings: ConsensusSettings) -> int:
    """How often this directory was started; 0 when it is new and may be."""
    path = settings.directory / MANAGER_FILE
    if not path.exists():
        if not (settings.bootstrap or settings.replace):
            refuse(EXIT_IDENTITY, f"{path} is absent; start with --bootstrap or --replace")
        if (settings.directory / DUMP_FILE).exists():
            refuse(EXIT_IDENTITY, f"{settings.directory} has a dump but no {MANAGER_FILE}")
        return 0
    try:
        identity: Any = json.loads(path.read_bytes())
        found = (identity["cluster_id"], identity["node_id"])
        starts = int(identity["starts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        refuse(EXIT_IDENTITY, f"{path}: {type(error).__name__}: {error}")
    if found != (settings.cluster_id, settings.node_id):
        refuse(EXIT_IDENTITY, f"{path} belongs to {found[1]} of cluster {found[0]}")
    if not (settings.directory / JOURNAL_FILE).exists():
        refuse(EXIT_NO_DUMP, f"{settings.directory} has no journal: a voter without memory")
    return starts


def _write_identity(settings: ConsensusSettings, starts: int) -> None:
    path = settings.directory / MANAGER_FILE
    identity = {
        "format": 1,
        "cluster_id": settings.cluster_id,
        "node_id": settings.node_id,
        "starts": starts,
    }
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(identity) + "\n", encoding="utf-8")
    sync_file_and_directory(temporary)
    temporary.replace(path)
    sync_file_and_directory(path)


def _open_journal(settings: ConsensusSettings, stop: FailStop) -> DurableJournal:
    directory = settings.directory
    try:
        return DurableJournal(
            directory / JOURNAL_FILE,
            stop=stop,
            sync_dump_directory=lambda: _sync_dump(directory / DUMP_FILE),
        )
    except (JournalCorrupt, sqlite3.Error, OSError) as error:
        refuse(EXIT_JOURNAL, f"{directory / JOURNAL_FILE}: {type(error).__name__}: {error}")


def _sync_dump(path: Path) -> None:
    if path.exists():
        sync_file_and_directory(path)


def _open_dump(path: Path) -> Dump | None:
    try:
        return read_dump(path)
    except (DumpDamaged, OSError) as error:
        refuse(EXIT_DUMP, f"{path}: {error}")
