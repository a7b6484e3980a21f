"""The simulation's own judge: what must not look like a run that passed."""

import asyncio
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import chaos
from chaos.sim import cluster
from chaos.sim.clients import ANSWER_SECONDS, Traffic, Writer
from chaos.sim.clock import Dice, SimClock, VirtualLoop
from chaos.sim.network import Answer, SimNetwork
from chaos.sim.node import _awaited
from chaos.sim.plan import Fault, Plan
from chaos.sim.run import simulate
from chaos.sim.twins import BUGS
from records.errors import QuorumlogError, Unknown
from runtime.deadline import Deadline

PACKAGES = ("cluster", "ingestor", "node", "query", "runtime", "storage")


def test_a_client_that_hangs_is_not_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """L2: an agent that never comes to its end, long after the heal and the end of all troubles."""

    async def agent(*_: Any) -> int:
        await asyncio.Event().wait()
        return 0

    monkeypatch.setattr(cluster, "agent", agent)

    found = simulate(1, Plan())

    assert "L2" in found.invariants


@pytest.mark.parametrize("seconds", [0.1, ANSWER_SECONDS + 1])
def test_a_request_that_breaks_off_is_told_although_nobody_hears_it(seconds: float) -> None:
    """Its answer is lost, or comes too late: the client sees no more than that."""

    async def asks() -> list[tuple[str, str]]:
        turns = iter((False, True))  # the request arrives, the answer does not
        calm: Any = SimpleNamespace(
            delay=lambda *_: 0.0,
            weather=SimpleNamespace(loss=0.5),
            dice=SimpleNamespace(chance=lambda _: next(turns)),
        )
        node: Any = SimpleNamespace(up=True, spawn=asyncio.ensure_future)
        nobody: Any = None
        traffic = Traffic(
            {"node1": node}, calm, nobody, nobody, [], {}, [], [], on_ack=nobody
        )  # fmt: skip

        async def work(_: Any) -> None:
            await asyncio.sleep(seconds)
            raise ValueError("nobody expects this")

        with pytest.raises(QuorumlogError):
            await traffic.ask("node1", work)
        await asyncio.sleep(2 * ANSWER_SECONDS)
        return traffic.broken

    loop = VirtualLoop()
    try:
        ((name, text),) = loop.run_until_complete(asks())
    finally:
        loop.close()
    assert name == "BUG"
    assert "nobody expects this" in text


def test_a_call_between_nodes_that_breaks_off_is_told() -> None:
    """To whoever calls it is an answer that is unknown, as by bad weather."""
    broken: list[tuple[str, str]] = []

    async def serve(*_: object) -> Answer:
        raise TypeError("nobody expects this")

    async def calls() -> None:
        network = SimNetwork(Dice("network", 1), broken)
        network.serve["node2"] = serve
        network.spawn["node2"] = lambda one, args: asyncio.ensure_future(_awaited(one, args))
        clock = SimClock(asyncio.get_running_loop())
        with pytest.raises(Unknown):
            await network.call("node1", "node2", "scan", {}, b"", Deadline.after(clock, 1.0))

    loop = VirtualLoop()
    try:
        loop.run_until_complete(calls())
    finally:
        loop.close()
    assert broken == [("BUG", "a call broke off: TypeError('nobody expects this')")]


@pytest.mark.parametrize("which", [0, 2])
def test_a_writer_that_breaks_off_is_told(which: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that is none of the product's is a bug, also if another task ends the writer's work.

    The first writer, and one of a newer epoch.
    """
    begun: list[Writer] = []
    real = Writer.run

    async def run(self: Writer) -> None:
        if self not in begun:
            begun.append(self)
            if len(begun) == which + 1:
                raise RuntimeError("nobody expects this")
        await real(self)

    monkeypatch.setattr(Writer, "run", run)
    newer = (Fault(1.0, "newer producer", 0, 0.5),) * 3

    found = simulate(1, Plan(faults=newer))

    assert len(begun) > which
    assert "nobody expects this" in dict(found.broken)["BUG"]


@pytest.mark.parametrize("event", BUGS)
def test_errors_that_count_as_bugs_are_events_of_the_product(event: str) -> None:
    """A text that the product logs no more would be a check that cannot fail."""
    root = Path(chaos.__file__).parent.parent
    sources = [path for name in PACKAGES for path in (root / name).rglob("*.py")]

    logged = re.compile(rf'log\.error\)?\(\s*"{re.escape(event)}"')
    assert any(logged.search(path.read_text()) for path in sources)
