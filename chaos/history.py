"""The history of a run: what clients asked and saw, and what was broken meanwhile.

Files of JSON lines. `ops.jsonl`: a head line; for each request one line before it is sent and one
after it returned, flushed each, so that a run that dies keeps all it saw. `nemesis.jsonl`: one line a
fault, when it is over. `evidence.jsonl`: see `chaos.evidence`. One clock for all: CLOCK_MONOTONIC of this
machine, in nanoseconds.

An outcome is `ok`, `fail` or `unknown`. `fail` means *surely nothing was stored*, and is given only if
the server said `definite: true`; a time-out, a reset or a request that never returned is `unknown`.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from chaos.evidence import Dump, Lead, Look, ManagerLog, evidence_of
from runtime.clock import Clock

OK, FAIL, UNKNOWN = "ok", "fail", "unknown"
#: Kinds of operations: rows sent; rows read; rows of each client counted; the last reads of all rows.
APPEND, READ, COUNT, FINAL = "append", "read", "count", "final"
#: The same of `chaos.bulk`: their rows are noted as spans of numbers, in answers too.
BULK, BULK_READ, BULK_FINAL = "bulk", "bulk-read", "bulk-final"

#: Faults during which their targets surely do nothing, from the bite to the heal.
AT_REST = frozenset(
    ("kill", "pause", "restart", "failpoint", "wipe", "power-cut", "corrupt")
)  # fmt: skip
#: Faults during which the targets and all others cannot reach one another, while clients reach them all.
CUTS = frozenset(("partition", "one-way"))

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Op:
    """One request. `rows`: ranges of numbers that an append carried, both ends in it.

    `covers`: what a read asked for: `""` all rows, a client's name, or a group's. `resp`: for appends
    `ack_till`, `epoch`, `missing`, `rejected`, `conflict`; for reads `rows` as [name, digest],
    `complete`, `missing`; for counts `counts` by client. `t_ret` is None if it never returned. Bulk reads:
    `rows` is the span asked for, `resp` has `found` (spans), `doubled`, `altered`, `strangers` and `order`.
    """

    id: int
    client: str
    kind: str
    node: str
    t_inv: int
    t_ret: int | None = None
    outcome: str = UNKNOWN
    rows: tuple[Range, ...] = ()
    covers: str = ""
    resp: dict[str, Any] = field(default_factory=dict)

    def numbers(self) -> Iterator[int]:
        """The numbers of an append's rows."""
        for first, last in self.rows:
            yield from range(first, last + 1)


@dataclass(frozen=True, slots=True)
class FaultRecord:
    """One fault: it worked from `t_bitten` (proven by `proof`) until `t_heal`; all well at `t_healed`.

    `t_bitten` is None if it did not bite, `t_healed` if the cluster did not come back.
    """

    what: str
    targets: tuple[str, ...]
    t_begin: int
    t_bitten: int | None
    t_heal: int
    t_healed: int | None
    proof: dict[str, Any] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, slots=True)
class Head:
    """What the run was: where its numbers came from, and the quorum it ran with.

    `services` is the service of each writing client; `sequenced` are those that number their rows
    towards the server by the same numbers. `bulk`: the service of each bulk client, if there are any.
    `converges`: whether nodes were asked what they hold in the end. `spares`: nodes beside `nodes` that may
    join.
    """

    scenario: str
    seed: int
    start_micros: int
    nodes: tuple[str, ...]
    n: int
    w: int
    r: int
    services: dict[str, str]
    sequenced: tuple[str, ...] = ()
    converges: bool = True
    bulk: dict[str, str] = field(default_factory=dict)
    spares: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeState:
    """What a node says it holds, after the last reads, from its own disk alone.

    `shards`: [entries, digest] by shard. `damage`: reports of damaged bytes in its log. `t`: when it said so.
    `owns`: the shards it owns by the ring, None if every node owns every shard.
    """

    node: str
    t: int
    shards: dict[str, tuple[int, str]]
    quarantined: int = 0
    damage: int = 0
    owns: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class History:
    """A whole run. `unfinished`: rows that clients still had to give up in the end, by client.

    From `dumps` on: what `chaos.evidence` holds, of a run with nodes of its own.
    """

    head: Head
    ops: tuple[Op, ...]
    faults: tuple[FaultRecord, ...] = ()
    unfinished: dict[str, int] = field(default_factory=dict)
    states: tuple[NodeState, ...] = ()
    dumps: tuple[Dump, ...] = ()
    looks: tuple[Look, ...] = ()
    logs: tuple[ManagerLog, ...] = ()
    leads: tuple[Lead, ...] = ()


class Recorder:
    """Writes a history while it happens. One event loop; each line is flushed."""

    def __init__(self, folder: Path, head: Head, clock: Clock) -> None:
        self._clock = clock
        self._next = 1
        self._ops: IO[str] = (folder / "ops.jsonl").open("x", encoding="utf-8")
        self._faults: IO[str] = (folder / "nemesis.jsonl").open("x", encoding="utf-8")
        self._write(self._ops, {"type": "head", **_plain(head)})

    def now(self) -> int:
        """Nanoseconds on the one clock."""
        return int(self._clock.monotonic() * 1e9)

    def invoke(
        self, client: str, kind: str, node: str, rows: Iterable[Range] = (), covers: str = ""
    ) -> int:
        """Notes that a request is about to be sent; its id."""
        number, self._next = self._next, self._next + 1
        line: dict[str, Any] = {"type": "inv", "op": number, "client": client, "kind": kind}
        line |= {"node": node, "t": self.now()}
        given = [list(one) for one in rows]
        if given:
            line["rows"] = given
        if covers:
            line["covers"] = covers
        self._write(self._ops, line)
        return number

    def returned(self, op: int, outcome: str, resp: dict[str, Any] | None = None) -> None:
        """Notes how a request ended."""
        line = {"type": "ret", "op": op, "t": self.now(), "outcome": outcome}
        self._write(self._ops, line | ({"resp": resp} if resp else {}))

    def gave_up(self, client: str, rows: int) -> None:
        """Notes that a client ends with rows that were never acknowledged."""
        self._write(self._ops, {"type": "end", "client": client, "rows": rows})

    def states(self, states: Iterable[NodeState]) -> None:
        """Notes what the nodes hold in the end."""
        for state in states:
            self._write(self._ops, {"type": "state", **_plain(state)})

    def fault(self, record: FaultRecord) -> None:
        """Notes a fault that is over."""
        self._write(self._faults, _plain(record))

    def close(self) -> None:
        """Closes the files."""
        self._ops.close()
        self._faults.close()

    @staticmethod
    def _write(file: IO[str], line: dict[str, Any]) -> None:
        file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
        file.flush()


def _plain(value: Head | FaultRecord | NodeState) -> dict[str, Any]:
    return {name: getattr(value, name) for name in type(value).__dataclass_fields__}


def load(folder: Path) -> History:
    """The history that a run left in its folder.

    Raises:
        ValueError: a line that cannot be read (but a torn last line is what a killed run leaves).
    """
    head: Head | None = None
    ops: dict[int, dict[str, Any]] = {}
    unfinished: dict[str, int] = {}
    states: list[NodeState] = []
    for line in _lines(folder / "ops.jsonl"):
        kind = line.pop("type")
        if kind == "head":
            head = _head(line)
        elif kind == "inv":
            rows = tuple((first, last) for first, last in line.get("rows", []))
            ops[line["op"]] = {
                "id": line["op"], "client": line["client"], "kind": line["kind"], "node": line["node"],
                "t_inv": line["t"], "rows": rows, "covers": line.get("covers", ""),
            }  # fmt: skip
        elif kind == "ret":
            ops[line["op"]] |= {
                "t_ret": line["t"], "outcome": line["outcome"], "resp": line.get("resp", {})
            }  # fmt: skip
        elif kind == "end":
            unfinished[line["client"]] = line["rows"]
        elif kind == "state":
            shards = {shard: (one[0], one[1]) for shard, one in line["shards"].items()}
            owns = None if line.get("owns") is None else tuple(line["owns"])
            states.append(NodeState(**{**line, "shards": shards, "owns": owns}))
    if head is None:
        raise ValueError(f"{folder}: ops.jsonl has no head line")
    faults = tuple(
        FaultRecord(**{**line, "targets": tuple(line["targets"])})
        for line in _lines(folder / "nemesis.jsonl")
    )
    made = tuple(Op(**one) for one in ops.values())
    pieces = evidence_of(folder)
    return History(
        head, made, faults, unfinished, tuple(states),
        tuple(one for one in pieces if isinstance(one, Dump)),
        tuple(one for one in pieces if isinstance(one, Look)),
        tuple(one for one in pieces if isinstance(one, ManagerLog)),
        tuple(one for one in pieces if isinstance(one, Lead)),
    )  # fmt: skip


def _head(line: dict[str, Any]) -> Head:
    lists = {name: tuple(line.get(name, ())) for name in ("nodes", "sequenced", "spares")}
    return Head(**{**line, **lists})


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    whole, _, _torn = text.rpartition("\n")  # half a line promised nothing
    for number, line in enumerate(whole.split("\n") if whole else [], 1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
