"""Faults carried out on a cluster that is only pretended: what bites, what heals, who is meant."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chaos import breaking
from chaos.history import FaultRecord, Recorder, load
from chaos.nemesis import RAFT_LEADER, Fault
from chaos.processes import FaultDidNotBite
from node.cli_errors import CliError
from runtime.clock import SystemClock
from tests.unit.chaos.histories import HEAD

KILL = Fault("kill", ("node2",), 0.0, 0.01)
PAUSE = Fault("pause", ("node1", "node3"), 0.0, 0.01)


class Process:
    """A node's process."""

    running = True
    exit_code: int | None = None


class Cluster:
    """Notes what is done to it."""

    ids = ("node1", "node2", "node3")

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.running: dict[str, Any] = {node: Process() for node in self.ids}
        self.leaders: list[Any] = ["node3"]
        self.fails: dict[str, Exception] = {}

    def _call(self, name: str, *nodes: str) -> dict[str, int]:
        if name in self.fails:
            raise self.fails[name]
        self.calls.append(" ".join((name, *nodes)))
        return dict.fromkeys(nodes, 77)

    def kill(self, *nodes: str) -> dict[str, int]:
        return self._call("kill", *nodes)

    def pause(self, *nodes: str) -> dict[str, int]:
        return self._call("pause", *nodes)

    def resume(self, *nodes: str) -> None:
        self._call("resume", *nodes)

    def start(self) -> None:
        self._call("start")

    def get(self, path: str, node: int = 0, timeout: float = 0) -> Any:
        answer = self.leaders[node % len(self.leaders)]
        if isinstance(answer, Exception):
            raise answer
        return {"node": answer}


def ticking() -> Callable[[], int]:
    """A clock that only goes on."""
    times = iter(range(1, 1000))
    return lambda: next(times)


def inject(fault: Fault, cluster: Cluster) -> FaultRecord:
    """One fault on the pretended cluster."""
    return breaking.Breaker(cluster, ticking()).inject(fault)  # type: ignore[arg-type]


def test_a_kill_is_healed_by_a_start_and_a_pause_by_a_resume() -> None:
    """With times in order, and the proof."""
    cluster = Cluster()

    killed, paused = inject(KILL, cluster), inject(PAUSE, cluster)

    assert cluster.calls == ["kill node2", "start", "pause node1 node3", "resume node1 node3"]
    assert killed.proof == {"pids": {"node2": 77}, "seen": "ended by SIGKILL"}
    assert paused.proof["seen"] == "state T"
    assert killed.t_begin < (killed.t_bitten or 0) < killed.t_heal < (killed.t_healed or 0)


def test_a_fault_that_does_not_bite_is_noted_as_such() -> None:
    """Nothing is healed that was not broken."""
    cluster = Cluster()
    cluster.fails["kill"] = FaultDidNotBite("node2 had ended by itself")

    record = inject(KILL, cluster)

    assert (record.t_bitten, record.error) == (None, "node2 had ended by itself")
    assert cluster.calls == []


@pytest.mark.parametrize("bites", [True, False])
def test_what_was_asked_of_the_quorum_is_noted_once_bitten_or_not(bites: bool) -> None:
    """The checkers judge by the quorum of the time; a fault may change it and then not bite."""
    cluster = Cluster()
    if not bites:
        cluster.fails["kill"] = FaultDidNotBite("gone")
    breaker = breaking.Breaker(cluster, lambda: 7)  # pyright: ignore[reportArgumentType]
    note = {"before": [3, 2, 2], "after": [3, 3, 1], "asked_at": 1, "ended_at": 2}
    breaker.site.quorums.append(note)

    first, second = breaker.inject(KILL), breaker.inject(KILL)

    assert first.proof["quorums"] == [note]
    assert "quorums" not in second.proof


def test_a_cluster_that_does_not_come_back_is_noted_as_such() -> None:
    """The fault has bitten and was never healed."""
    cluster = Cluster()
    cluster.fails["start"] = CliError("not ready after 60 s")

    record = inject(KILL, cluster)

    assert record.t_bitten is not None
    assert (record.t_healed, record.error) == (None, "not ready after 60 s")


def test_the_raft_leader_is_whoever_leads_then() -> None:
    """Asked of the first node that knows one that runs."""
    cluster = Cluster()
    cluster.leaders = [OSError("gone"), None, "node1"]

    record = inject(Fault("pause", (RAFT_LEADER,), 0.0, 0.0), cluster)

    assert record.targets == ("node1",)


def test_no_raft_leader_is_a_fault_that_did_not_bite(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while the wait ends."""
    monkeypatch.setattr(breaking, "LEADER_SECONDS", 0.2)
    cluster = Cluster()
    cluster.leaders = [None, "node9", OSError("gone")]

    record = inject(Fault("kill", (RAFT_LEADER,), 0.0, 0.0), cluster)

    assert (record.t_bitten, record.error) == (None, "nobody knows a Raft leader")


async def carry_out(folder: Path, cluster: Cluster, faults: list[Fault], seconds: float) -> Any:
    """The history after a plan."""
    recorder = Recorder(folder, HEAD, SystemClock())
    said: list[str] = []
    breaker = breaking.Breaker(cluster, recorder.now)  # type: ignore[arg-type]
    await breaking.break_and_heal(faults, breaker, recorder, seconds, said.append)
    recorder.close()
    return load(folder).faults, said


async def test_a_plan_ends_with_a_cluster_that_is_broken_for_good(tmp_path: Path) -> None:
    """There is nothing more to break."""
    cluster = Cluster()
    cluster.fails["start"] = CliError("not ready")

    faults, said = await carry_out(tmp_path, cluster, [KILL, PAUSE], 60)

    assert len(faults) == 1
    assert "NOT BACK: not ready" in said[0]


async def test_a_plan_ends_when_the_time_is_over_but_has_one_fault(tmp_path: Path) -> None:
    """Heals that take long must not make a run endless."""
    faults, _ = await carry_out(tmp_path, Cluster(), [KILL, PAUSE], 0.0)

    assert [one.what for one in faults] == ["kill"]


async def test_a_node_that_ends_by_itself_is_a_fault_of_its_own(tmp_path: Path) -> None:
    """Nobody broke it: the liveness verdict must see it."""
    cluster = Cluster()
    cluster.running["node1"].running = False
    cluster.running["node1"].exit_code = 70

    faults, _ = await carry_out(tmp_path, cluster, [PAUSE], 60)

    assert faults[-1].what == "end by itself"
    assert (faults[-1].targets, faults[-1].error) == (("node1",), "exit code 70")
    assert faults[-1].t_healed is None


def test_a_fault_of_links_needs_links() -> None:
    """A run without any cannot have lost replies."""
    record = inject(Fault("lose-replies", ("node1",), 0.0, 0.0), Cluster())

    assert (record.t_bitten, record.error) == (None, "this run has no links")


class LinkStub:
    """Notes what is done to links; their addresses are those of a server that is given."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.calls: list[str] = []
        self.on_cut: Callable[[], None] = lambda: None

    def link(self, name: str, upstream: str) -> str:
        return self.address

    def cut_after(self, link: str, bytes: int) -> None:
        self.calls.append(f"cut {link}")
        self.on_cut()

    def slow(self, link: str, ms: int, jitter: int) -> None:
        self.calls.append(f"slow {link}")

    def heal(self, link: str) -> None:
        self.calls.append(f"heal {link}")


HEAD_TEXT = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 16\r\n"


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """A server on loopback that answers everything with these bytes; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    one, _ = listener.accept()
                    with one:
                        one.recv(4096)
                        one.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def linked(fault: Fault, node_port: int, link_port: int) -> tuple[FaultRecord, LinkStub]:
    """A fault of links on a cluster whose node1 and its link listen there."""
    cluster, links = Cluster(), LinkStub(f"127.0.0.1:{link_port}")
    node = SimpleNamespace(id="node1", host="127.0.0.1", http_port=node_port, url="")
    cluster.plan = SimpleNamespace(nodes=[node])  # type: ignore[attr-defined]
    cluster.node = lambda _: node  # type: ignore[attr-defined]
    breaker = breaking.Breaker(cluster, ticking(), links)  # type: ignore[arg-type]
    breaker.link_all()
    return breaker.inject(fault), links


CUT = Fault("cut-answers", ("node1",), 0.0, 0.0)


def test_half_an_answer_proves_that_the_link_is_cut() -> None:
    """The node answers directly; through the link the head alone arrives, and not all of it."""
    with answering(HEAD_TEXT + b'\r\n{"status": "ok"}') as node, answering(HEAD_TEXT[:60]) as link:
        record, links = linked(CUT, node, link)

    assert record.t_bitten is not None, record
    assert "broke off" in record.proof["seen"]["node1"]
    assert links.calls == ["cut node1", "heal node1"]


def test_a_link_that_still_answers_was_not_cut_and_is_healed_all_the_same() -> None:
    """What was done of a fault must not stay behind it."""
    with answering(HEAD_TEXT + b'\r\n{"status": "ok"}') as node:
        record, links = linked(CUT, node, node)

    assert record.t_bitten is None
    assert "the link to node1 answered" in record.error
    assert links.calls == ["cut node1", "heal node1"]


def test_a_link_that_is_not_late_was_not_slowed() -> None:
    """A quick answer is no proof of latency."""
    with answering(HEAD_TEXT + b'\r\n{"status": "ok"}') as node:
        record, _ = linked(Fault("slow", ("node1",), 0.0, 0.0), node, node)

    assert record.t_bitten is None


def test_a_node_that_does_not_answer_itself_shows_nothing_about_its_link() -> None:
    """Then the fault is not the link's."""
    with answering(b"") as node:
        record, _ = linked(CUT, node, node)

    assert record.t_bitten is None
    assert "node1 itself broke off" in record.error
