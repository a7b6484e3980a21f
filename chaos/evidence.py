"""What a run learns beside its clients' words: dumps of stores, looks at the control history, managers' logs.

`evidence.jsonl` has a line for each, with a `type`; `Evidence` writes them while the run goes on,
`evidence_of` reads them back. Plain values of one shape each, so that the checkers that look at them are
pure.

Times are nanoseconds of the history's clock, hashes hexadecimal.
"""

import json
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

FILE = "evidence.jsonl"
#: Moments of a dump: all nodes were down and none had been started yet; the run was over.
COLD, END = "cold", "end"
Spans = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Dump:
    """What one store holds, read from its files by the judge.

    `shards`: of each shard with entries their number, their digest worked out anew from the headers on disk,
    and a digest of the rows themselves. `rows`: by shard and client the numbers of its rows, as spans.
    `broken`: blocks that fail a check. `moment`: `cold`, with `event` for which time in the run, or `end`.
    """

    node: str
    t: int
    moment: str
    shards: dict[str, tuple[int, str, str]]
    rows: dict[str, dict[str, Spans]] = field(default_factory=dict)
    broken: tuple[str, ...] = ()
    event: int = 0

    def spans(self, client: str) -> Spans:
        """The numbers of a client's rows, whatever the shard."""
        return tuple(span for by in self.rows.values() for span in by.get(client, ()))


@dataclass(frozen=True, slots=True)
class Look:
    """What a node told of the control history (`GET /cluster/control`), asked at `t`."""

    node: str
    t: int
    index: int
    history: str
    ring_epoch: int
    ring_hash: str
    cluster_epoch: int
    quorum: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Step:
    """The state after one command of a manager's log, applied by the judge."""

    index: int
    history: str
    ring_epoch: int
    ring_hash: str


@dataclass(frozen=True, slots=True)
class ManagerLog:
    """A manager's log as its disk has it in the end. `first`: the log index it begins at.

    `assigned`: (log index, shard, shard epoch, leader) of each shard that got another leader. `changes`: (log
    index, number) of each change of the ring that began, with number 0 of each that ended.
    """

    node: str
    first: int
    steps: tuple[Step, ...]
    assigned: tuple[tuple[int, int, int, str], ...] = ()
    changes: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Lead:
    """A manager noted in its log that it leads a term of the Raft group."""

    node: str
    term: int


Piece = Dump | Look | ManagerLog | Lead


class Evidence:
    """Writes pieces as they come, from any thread; each line is flushed."""

    def __init__(self, folder: Path) -> None:
        self._file: IO[str] = (folder / FILE).open("x", encoding="utf-8")
        self._lock = threading.Lock()

    def note(self, piece: Piece) -> None:
        """One line more; none after `close`."""
        with self._lock:
            if not self._file.closed:
                line = {"type": type(piece).__name__, **_plain(piece)}
                self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
                self._file.flush()

    def close(self) -> None:
        """Closes the file; again is harmless."""
        with self._lock:
            self._file.close()


def _plain(piece: Any) -> dict[str, Any]:
    values = {name: getattr(piece, name) for name in type(piece).__dataclass_fields__}
    if isinstance(piece, ManagerLog):
        values["steps"] = [[s.index, s.history, s.ring_epoch, s.ring_hash] for s in piece.steps]
    return values


def evidence_of(folder: Path) -> list[Piece]:
    """All pieces that a run left; none if it had no nodes of its own. Half a last line promised nothing."""
    path = folder / FILE
    if not path.exists():
        return []
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    return [_piece(json.loads(line)) for line in whole.split("\n") if line]


def _piece(line: dict[str, Any]) -> Piece:
    kind = line.pop("type")
    if kind == "Dump":
        shards = {shard: tuple(one) for shard, one in line["shards"].items()}
        rows = {
            shard: {client: tuple((a, b) for a, b in spans) for client, spans in by.items()}
            for shard, by in line["rows"].items()
        }
        return Dump(**{**line, "shards": shards, "rows": rows, "broken": tuple(line["broken"])})
    if kind == "Look":
        return Look(**{**line, "quorum": tuple(line["quorum"])})
    if kind == "Lead":
        return Lead(**line)
    steps = tuple(Step(*one) for one in line["steps"])
    assigned = tuple(tuple(one) for one in line["assigned"])
    changes = tuple((index, number) for index, number in line["changes"])
    return ManagerLog(line["node"], line["first"], steps, assigned, changes)
