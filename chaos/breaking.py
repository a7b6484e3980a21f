"""Carries out a plan of faults: breaks, proves that it bit, holds, heals, waits until all is well.

The proof of a fault on a process is the kernel's word (`processes`). That of a fault on a link is a
probe: the node answers directly as always, and through the link as the fault says.
"""

import asyncio
import contextlib
import http.client
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from chaos.history import FaultRecord, Recorder
from chaos.local_cluster import LocalCluster
from chaos.nemesis import RAFT_LEADER, Fault
from chaos.net import LinkFailed, Links
from chaos.processes import FaultDidNotBite
from node.cli_errors import CliError

#: Seconds in which a Raft leader must be known, when one is to be broken.
LEADER_SECONDS = 20.0
#: Seconds that a probe waits for an answer.
PROBE_SECONDS = 2.0
#: What `slow` does to a link: milliseconds of latency, and how much they vary.
SLOW_MS, SLOW_JITTER_MS = 300, 200
#: Bytes of answers after which `cut-answers` ends each connection: in the middle of the head.
CUT_BYTES = 97

Say = Callable[[str], None]


class Breaker:
    """What can be broken in a run: the nodes, and the clients' links to them, if there are any."""

    def __init__(
        self, cluster: LocalCluster, now: Callable[[], int], links: Links | None = None
    ) -> None:
        self._cluster, self._now, self._links = cluster, now, links
        self._addresses: dict[str, str] = {}

    def link_all(self) -> dict[str, str]:
        """A link to each node; the URLs to use, by node id. Without links those of the nodes."""
        nodes = self._cluster.plan.nodes
        if self._links is None:
            return {node.id: node.url for node in nodes}
        for node in nodes:
            self._addresses[node.id] = self._links.link(node.id, f"127.0.0.1:{node.http_port}")
        return {node: f"http://{address}" for node, address in self._addresses.items()}

    def inject(self, fault: Fault) -> FaultRecord:
        """One fault from its begin to its heal. Blocks."""
        begin = self._now()
        try:
            targets = self._resolve(fault.targets)
            proof = self._break(fault.what, targets)
        except (FaultDidNotBite, LinkFailed) as error:
            self._undo(fault)
            end = self._now()
            return FaultRecord(fault.what, fault.targets, begin, None, end, end, {}, str(error))
        bitten = self._now()
        time.sleep(fault.hold)
        heal = self._now()
        error, healed = "", None
        try:
            self._heal(fault.what, targets)
            healed = self._now()
        except (CliError, FaultDidNotBite, LinkFailed) as failure:
            error = str(failure)
        return FaultRecord(fault.what, targets, begin, bitten, heal, healed, proof, error)

    def _break(self, what: str, targets: tuple[str, ...]) -> dict[str, Any]:
        if what == "kill":
            return {"pids": self._cluster.kill(*targets), "seen": "ended by SIGKILL"}
        if what == "pause":
            return {"pids": self._cluster.pause(*targets), "seen": "state T"}
        links = self._needed_links()
        for target in targets:
            if what == "lose-replies":
                links.cut(target, "downstream")
            elif what == "slow":
                links.slow(target, SLOW_MS, SLOW_JITTER_MS)
            else:
                links.cut_after(target, CUT_BYTES)
        return {"seen": {target: self._probe(what, target) for target in targets}}

    def _heal(self, what: str, targets: tuple[str, ...]) -> None:
        if what == "kill":
            self._cluster.start()
        elif what == "pause":
            self._cluster.resume(*targets)
        else:
            for target in targets:
                self._needed_links().heal(target)

    def _undo(self, fault: Fault) -> None:
        """After a fault that did not bite: what was done of it on links must not stay."""
        if self._links is not None and fault.what not in ("kill", "pause"):
            for target in fault.targets:
                with contextlib.suppress(LinkFailed):  # the next fault will say so
                    self._links.heal(target)

    def _needed_links(self) -> Links:
        if self._links is None:
            raise LinkFailed("this run has no links")
        return self._links

    def _probe(self, what: str, target: str) -> str:
        """What a request sees through the link, while the node answers.

        Raises:
            FaultDidNotBite: as if nothing were broken; or the node does not answer at all.
        """
        directly, _ = _ask(f"127.0.0.1:{self._cluster.node(target).http_port}")
        if directly != "answered":
            raise FaultDidNotBite(f"{target} itself {directly}: nothing is shown by its link")
        seen, seconds = _ask(self._addresses[target])
        slow = what == "slow" and seconds >= (SLOW_MS - SLOW_JITTER_MS) / 1000
        if seen == "answered" and not slow:
            raise FaultDidNotBite(f"the link to {target} answered in {seconds:.3f} s")
        return f"directly answered, through the link {seen} after {seconds:.3f} s"

    def _resolve(self, targets: tuple[str, ...]) -> tuple[str, ...]:
        if targets != (RAFT_LEADER,):
            return targets
        until = time.monotonic() + LEADER_SECONDS
        while time.monotonic() < until:
            for index in range(len(self._cluster.ids)):
                try:
                    answer = self._cluster.get("/cluster/leader", index, timeout=PROBE_SECONDS)
                    leader = answer.get("node")
                except (OSError, ValueError, AttributeError, http.client.HTTPException):
                    continue  # this one is slow or away: the next may know
                if leader in self._cluster.running:
                    return (leader,)
            time.sleep(0.1)
        raise FaultDidNotBite("nobody knows a Raft leader")

    def ended_by_themselves(self) -> list[FaultRecord]:
        """Nodes that nobody broke and that are gone all the same: faults of their own, never healed."""
        now = self._now()
        return [
            FaultRecord(
                "end by itself", (node,), now, now, now, None, {}, f"exit code {one.exit_code}"
            )
            for node, one in self._cluster.running.items()
            if not one.running
        ]


def _ask(address: str) -> tuple[str, float]:
    """What came of a GET /health, and after how many seconds."""
    started = time.monotonic()
    connection = http.client.HTTPConnection(address, timeout=PROBE_SECONDS)
    try:
        connection.request("GET", "/health", headers={"Connection": "close"})
        json.loads(connection.getresponse().read())  # half an answer is none
        seen = "answered"
    except TimeoutError:
        seen = "gave no answer"
    except (OSError, ValueError, http.client.HTTPException) as error:
        seen = f"broke off ({type(error).__name__})"
    finally:
        connection.close()
    return seen, time.monotonic() - started


async def break_and_heal(
    faults: Sequence[Fault], breaker: Breaker, recorder: Recorder, seconds: float, say: Say
) -> None:
    """Carries out the plan, one fault after the other; ends early if heals took longer than reckoned."""
    until = time.monotonic() + seconds
    for done, fault in enumerate(faults):
        if done and time.monotonic() > until:
            break
        await asyncio.sleep(fault.wait)
        record = await asyncio.to_thread(breaker.inject, fault)
        recorder.fault(record)
        say(describe(record))
        if record.t_bitten is not None and record.t_healed is None:
            break  # the cluster did not come back: there is nothing more to break
    for record in breaker.ended_by_themselves():
        recorder.fault(record)
        say(describe(record))


def describe(fault: FaultRecord) -> str:
    """A fault in a line."""
    if fault.t_bitten is None:
        return f"{fault.what} {', '.join(fault.targets)} did not bite: {fault.error}"
    line = (
        f"{fault.what} {', '.join(fault.targets)} for {(fault.t_heal - fault.t_bitten) / 1e9:.1f} s"
    )
    if fault.t_healed is None:
        return f"{line}; NOT BACK: {fault.error}"
    return f"{line}, ready {(fault.t_healed - fault.t_heal) / 1e9:.1f} s after the heal"
