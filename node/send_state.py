"""Where sending a file stands, kept between runs: the bytes up to which every row is acknowledged.

One small JSON file for each (cluster, path) in the user's state folder (XDG). It is only ever a
shortcut: if it is lost, all is sent again under the same keys, and the cluster stores nothing twice.
A file that was replaced (other first bytes, or shorter) starts anew; one that has grown goes on.
"""

import hashlib
import json
import os
import socket
from dataclasses import asdict, dataclass, replace
from pathlib import Path

HEAD_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class State:
    """`offset`: decoded bytes done; `rows`: the rows in them; `size` of the file then, in bytes on disk."""

    path: str
    head_bytes: int
    head_digest: str
    size: int
    mtime_ns: int
    offset: int = 0
    rows: int = 0
    complete: bool = False

    def same_file(self, now: "State", head: bytes) -> bool:
        """Whether `now` is this file, perhaps grown. `head`: the first bytes of it as it is now."""
        return (
            now.size >= self.size
            and hashlib.sha256(head[: self.head_bytes]).hexdigest() == self.head_digest
        )


def folder() -> Path:
    """Where states are kept."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "quorumlog" / "send"


def describe(path: Path) -> tuple[State, bytes]:
    """The file as it is now, nothing sent; and its first bytes."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        facts = os.fstat(file.fileno())
    digest = hashlib.sha256(head).hexdigest()
    state = State(str(path.resolve()), len(head), digest, facts.st_size, facts.st_mtime_ns)
    return state, head


class StateFile:
    """The state of one file for one cluster."""

    def __init__(self, cluster: str, path: Path) -> None:
        name = hashlib.sha256(f"{cluster}\0{path.resolve()}".encode()).hexdigest()[:32]
        self._file = folder() / f"{name}.json"

    def load(self) -> State | None:
        """What was saved; None if nothing, or nothing that can be read."""
        try:
            return State(**json.loads(self._file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def save(self, state: State) -> None:
        """Replaces the state as a whole."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_suffix(f".{os.getpid()}.tmp")
        fresh.write_text(json.dumps(asdict(state)), encoding="utf-8")
        fresh.replace(self._file)

    def forget(self) -> None:
        """Removes the state."""
        self._file.unlink(missing_ok=True)


def starting_point(saved: State | None, now: State, head: bytes) -> State:
    """Where to go on: `now` with what is done already."""
    if saved is None or saved.path != now.path or not saved.same_file(now, head):
        return now
    unchanged = saved.size == now.size and saved.mtime_ns == now.mtime_ns
    done = saved.complete and unchanged
    return replace(now, offset=saved.offset, rows=saved.rows, complete=done)


def key_of(identity: str, offset: int, body: bytes) -> str:
    """The Idempotency-Key of a piece: the same bytes at the same place of the same file."""
    digest = hashlib.sha256(f"quorumlog send 1\0{identity}\0{offset}\0".encode())
    digest.update(hashlib.sha256(body).digest())
    return digest.hexdigest()[:40]


def file_identity(path: Path) -> str:
    """What names a file in keys: this machine and the path."""
    return f"{socket.gethostname()}\0{path.resolve()}"
