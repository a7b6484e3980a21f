"""T5: a manager killed at each step of journal and dump loses nothing that was acknowledged.

A lone manager compacts every few entries. Each run starts on what the run before left, checks that
every acknowledged command is there, goes on, and is killed (`os._exit`, nothing flushed) at the n-th
occurrence of one kind of step. A kill keeps the page cache; power cuts are another test.
"""

import asyncio
import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pysyncobj.serializer
import pytest

from cluster import consensus_journal
from cluster.consensus import ConsensusSettings, StartRefused
from cluster.consensus_pysyncobj import PySyncObjConsensus
from runtime.clock import SystemClock
from tests.support.raft_group import free_ports, put_schema

pytestmark = pytest.mark.integration

KINDS = (
    "before BEGIN",
    "before INSERT",
    "before DELETE",
    "after DELETE",
    "before COMMIT",
    "after COMMIT",
    "before pwrite",
    "before fsync",
    "after fsync",
    "before write",
    "half a write",
    "before rename",
    "after rename",
)
RUNS_PER_KIND = 4
PROPOSALS = 25
KILLED, LOST, REFUSED, DONE = 9, 10, 11, 12


class Steps:
    """Counts the steps of one kind and ends the process at the n-th."""

    def __init__(self, kind: str, occurrence: int) -> None:
        self._kind = kind
        self._left = occurrence

    def at(self, kind: str) -> None:
        if kind == self._kind:
            self._left -= 1
            if self._left < 0:
                os._exit(KILLED)

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*args: Any) -> Any:
            self.at(f"before {name}")
            result = function(*args)
            self.at(f"after {name}")
            return result

        return stepped

    def install(self) -> None:
        steps = self
        write = os.write
        connect = consensus_journal._connect

        class Connection:
            def __init__(self, path: str) -> None:
                self.inner = connect(path)

            def execute(self, sql: str, *args: Any) -> Any:
                return steps.around(sql.split()[0], self.inner.execute)(sql, *args)

            def __getattr__(self, name: str) -> Any:
                return getattr(self.inner, name)

        def torn_write(handle: int, data: Any) -> int:
            steps.at("before write")
            if len(data) > 500:  # a dump, not a notification
                write(handle, bytes(data[: len(data) // 2]))
                steps.at("half a write")
                return len(data) // 2
            return write(handle, data)

        consensus_journal._connect = Connection  # pyright: ignore[reportAttributeAccessIssue]
        os.fsync = self.around("fsync", os.fsync)
        os.pwrite = self.around("pwrite", os.pwrite)
        os.write = torn_write
        rename = self.around("rename", os.rename)
        pysyncobj.serializer.atomicReplace = rename  # pyright: ignore[reportPrivateImportUsage]


def settings(root: Path, port: int) -> ConsensusSettings:
    address = f"127.0.0.1:{port}"
    return ConsensusSettings(
        "n0",
        "test",
        address,
        {"n0": address},
        root / "n0",
        bytes(32),
        bootstrap=not (root / "n0" / "manager.json").exists(),
        append_period_seconds=0.01,
        election_min_seconds=0.04,
        election_max_seconds=0.06,
        leader_fallback_seconds=0.02,
        tick_seconds=0.005,
        compaction_entries=8,
    )


async def one_run(given: ConsensusSettings, run: int, acked: set[str], report: int) -> int:
    """Starts, checks, proposes; reports each acknowledged name."""
    consensus = PySyncObjConsensus(given, SystemClock())
    try:
        await consensus.start()
    except StartRefused as error:
        os.pwrite(report, f"refused {error.exit_code}: {error.message}".encode(), 0)
        return REFUSED
    state = await consensus.barrier(10.0)
    if not acked <= set(state.schemas):
        return LOST
    for number in range(PROPOSALS):
        name = f"r{run}-{number}"
        await consensus.propose("PutSchema", put_schema(name), 5.0)
        with open(report, "ab", buffering=0, closefd=False) as file:  # noqa: ASYNC230
            file.write(name.encode() + b"\n")
    return DONE


def in_a_child(work: Callable[[], int]) -> int:
    """The exit code of `work` in a forked process."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = work()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def stepped_run(
    given: ConsensusSettings, steps: Steps, run: int, acked: set[str], report: int
) -> int:
    """One run in the child; the very first, the founding of the directory, has no steps."""
    if run:
        steps.install()
    return asyncio.run(one_run(given, run, acked, report))


def test_a_kill_at_any_step_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """52 kills, in an order that a seed decides; every start finds all that was acknowledged."""
    plan = [(kind, n) for kind in KINDS for n in range(RUNS_PER_KIND)]
    order = random.Random(11)
    order.shuffle(plan)
    (port,) = free_ports(1)
    acked: set[str] = set()
    killed: set[str] = set()

    for run, (kind, spread) in enumerate(plan):
        report = os.open(tmp_path / "report", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        steps = Steps(kind, spread * order.randrange(1, 4))

        code = in_a_child(partial(stepped_run, settings(tmp_path, port), steps, run, acked, report))
        lines = (tmp_path / "report").read_text().split("\n")
        os.close(report)
        assert code in (KILLED, DONE), (run, kind, code, lines[-1])
        acked |= {line for line in lines if line.startswith("r")}
        if code == KILLED:
            killed.add(kind)

    final = in_a_child(
        lambda: asyncio.run(one_run(settings(tmp_path, port), 999, acked, os.open(os.devnull, 1)))
    )
    assert final == DONE
    assert len(acked) > 200
    assert killed == set(KINDS)
