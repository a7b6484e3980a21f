"""Carries out a plan of faults: breaks, proves that it bit, holds, heals, waits until all is well.

What each kind of fault does, and by what it is proven, stands in `chaos.faults`.
"""

import asyncio
import http.client
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

from chaos.disks import DiskFailed
from chaos.faults import KINDS, Site
from chaos.history import FaultRecord, Recorder
from chaos.local_cluster import LocalCluster
from chaos.nemesis import RAFT_LEADER, Fault
from chaos.net import LinkFailed, Links
from chaos.processes import FaultDidNotBite
from node.cli_errors import CliError

#: Seconds in which a Raft leader must be known, when one is to be broken.
LEADER_SECONDS = 20.0
#: Seconds that a node is asked for.
ASK_SECONDS = 2.0
#: What a fault may fail with, before or after it bit.
FAILURES = (FaultDidNotBite, LinkFailed, DiskFailed, CliError, OSError, subprocess.SubprocessError)

Say = Callable[[str], None]


class Breaker:
    """What can be broken in a run, and how a fault goes from its begin to its heal."""

    def __init__(
        self,
        cluster: LocalCluster,
        now: Callable[[], int],
        links: Links | None = None,
        site: Site | None = None,
    ) -> None:
        """`site`: what there is beside the cluster and the links."""
        self._cluster, self._now, self._links = cluster, now, links
        self.site = site or Site(cluster, links)

    def link_all(self) -> dict[str, str]:
        """A link to each node; the URLs to use, by node id. Without links those of the nodes."""
        nodes = self._cluster.plan.nodes
        if self._links is None:
            return {node.id: node.url for node in nodes}
        for node in nodes:
            address = f"{node.host}:{node.http_port}"
            self.site.addresses[node.id] = self._links.link(node.id, address)
        return {node: f"http://{address}" for node, address in self.site.addresses.items()}

    def inject(self, fault: Fault) -> FaultRecord:
        """One fault from its begin to its heal. Blocks."""
        begin, kind, targets = self._now(), KINDS[fault.what], fault.targets
        try:
            targets = self._resolve(fault.targets)
            proof = kind.bite(self.site, targets)
        except FAILURES as error:
            kind.undo(self.site, targets)
            end, left = self._now(), self._quorums()
            return FaultRecord(fault.what, targets, begin, None, end, end, left, str(error))
        bitten = self._now()
        time.sleep(fault.hold)
        heal = self._now()
        error, healed = "", None
        try:
            proof |= kind.heal(self.site, targets)
            healed = self._now()
        except FAILURES as failure:
            error = str(failure)
        proof |= self._quorums()
        return FaultRecord(fault.what, targets, begin, bitten, heal, healed, proof, error)

    def _quorums(self) -> dict[str, Any]:
        asked, self.site.quorums = self.site.quorums, []
        return {"quorums": asked} if asked else {}

    def _resolve(self, targets: tuple[str, ...]) -> tuple[str, ...]:
        if targets != (RAFT_LEADER,):
            return targets
        until = time.monotonic() + LEADER_SECONDS
        while time.monotonic() < until:
            for index in range(len(self._cluster.ids)):
                try:
                    answer = self._cluster.get("/cluster/leader", index, timeout=ASK_SECONDS)
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


def brief(error: str) -> str:
    """The first and the last line: what did not work, and what its log said last."""
    lines = [line.strip() for line in error.splitlines() if line.strip()] or [""]
    return lines[0] if len(lines) == 1 else f"{lines[0]} {lines[-1][:300]}"


def describe(fault: FaultRecord) -> str:
    """A fault in a line."""
    if fault.t_bitten is None:
        return f"{fault.what} {', '.join(fault.targets)} did not bite: {fault.error}"
    line = (
        f"{fault.what} {', '.join(fault.targets)} for {(fault.t_heal - fault.t_bitten) / 1e9:.1f} s"
    )
    if fault.t_healed is None:
        return f"{line}; NOT BACK: {brief(fault.error)}"
    return f"{line}, ready {(fault.t_healed - fault.t_heal) / 1e9:.1f} s after the heal"
