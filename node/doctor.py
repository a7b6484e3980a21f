"""What keeps quorumlog from working, or working well: looked at one by one, each with advice.

First this machine (Python, packages, open files, disk, fsync, ports, clock), then each node that can be
found (alive, ready, version, clock), then the cluster as a whole. Nothing is changed; the disk is
tested with a few small files in a temporary folder beside the data.
"""

import os
import resource
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Any

from ingestor.parsers import native
from node.cli_api import DEFAULT_SERVERS, Api
from node.install_check import strangers
from quorumlog.errors import QuorumlogError
from quorumlog.leaders import normalise
from runtime.clock import SystemClock

#: Below this a node goes read-only sooner or later; the floor itself is [storage] in its settings.
FREE_BYTES_LOW = 2 << 30
FREE_BYTES_BAD = 512 << 20
#: A group commit waits for one fsync: at 10 ms an append takes 10 ms, whatever the rest does.
FSYNC_SECONDS_SLOW = 0.02
FSYNC_TRIES = 15
OPEN_FILES_MIN = 1024
#: Clocks stamp rows and nothing else, but more than this makes `--since` confusing.
SKEW_SECONDS_MAX = 1.0


class Verdict(StrEnum):
    """How grave a finding is."""

    GOOD = "ok"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `advice`: what to do, if there is anything to do."""

    name: str
    verdict: Verdict
    text: str
    advice: str = ""

    def to_dict(self) -> dict[str, str]:
        """As printed with --json."""
        return {
            "name": self.name,
            "verdict": str(self.verdict),
            "text": self.text,
            "advice": self.advice,
        }


async def examine(servers: Sequence[str], data: Path) -> list[Finding]:
    """All findings, this machine first."""
    findings = [check_python(), check_packages(), check_native(), check_open_files()]
    findings += check_disk(data)
    if not servers:
        findings.append(check_ports())
    findings += await _check_cluster([normalise(one) for one in servers] or list(DEFAULT_SERVERS))
    return findings


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    """Python 3.11 or later."""
    text = ".".join(map(str, version))
    if version >= (3, 11):
        return Finding("python", Verdict.GOOD, text)
    return Finding("python", Verdict.BAD, text, "install Python 3.11 or later")


def check_packages() -> Finding:
    """Guard 3 of the packaging."""
    wrong = strangers(Path(__file__).resolve().parent.parent)
    if not wrong:
        return Finding("packages", Verdict.GOOD, "all from one folder")
    return Finding("packages", Verdict.BAD, "; ".join(wrong), "use an environment of its own")


def check_native() -> Finding:
    """The native kernels. Without them everything works, at several times the CPU for JSON."""
    verdict = Verdict.GOOD if native.available() else Verdict.WARN
    advice = "" if native.available() else "install a Rust toolchain (cargo), then: make native"
    return Finding("native kernels", verdict, native.described(), advice)


def check_open_files() -> Finding:
    """The limit on open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"up to {soft} open files"
    if soft == resource.RLIM_INFINITY or soft >= OPEN_FILES_MIN:
        return Finding("open files", Verdict.GOOD, text)
    return Finding("open files", Verdict.WARN, text, f"ulimit -n {OPEN_FILES_MIN}")


def check_disk(data: Path) -> list[Finding]:
    """Free space where the data is (or will be), and how long fsync takes there."""
    place = next(one for one in (data.resolve(), *data.resolve().parents) if one.is_dir())
    free = shutil.disk_usage(place).free
    text = f"{free / (1 << 30):.1f} GiB free in {place}"
    if free < FREE_BYTES_BAD:
        advice = "free some space: nodes are read-only below their floor"
        findings = [Finding("disk", Verdict.BAD, text, advice)]
    elif free < FREE_BYTES_LOW:
        findings = [Finding("disk", Verdict.WARN, text, "free some space soon")]
    else:
        findings = [Finding("disk", Verdict.GOOD, text)]
    return [*findings, check_fsync(place)]


def check_fsync(place: Path) -> Finding:
    """Median seconds of write and fdatasync of 4 KiB."""
    seconds: list[float] = []
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            for _ in range(FSYNC_TRIES):
                started = time.perf_counter()
                os.write(file.fileno(), b"\0" * 4096)
                os.fdatasync(file.fileno())
                seconds.append(time.perf_counter() - started)
    except OSError as error:
        return Finding(
            "fsync", Verdict.BAD, f"cannot write in {place}: {error.strerror}", "--data OTHER"
        )
    text = f"{median(seconds) * 1000:.2f} ms (median of {FSYNC_TRIES}, slowest {max(seconds) * 1000:.2f})"
    if median(seconds) <= FSYNC_SECONDS_SLOW:
        return Finding("fsync", Verdict.GOOD, text)
    advice = "each acknowledgement waits that long: a faster disk, or fewer others on it"
    return Finding("fsync", Verdict.WARN, text, advice)


def check_ports(servers: Iterable[str] = DEFAULT_SERVERS) -> Finding:
    """Whether the ports of `quorumlog up` are free, or in use by a cluster."""
    taken = []
    for url in servers:
        base = int(url.rsplit(":", 1)[1])
        for port in range(base, base + 3):
            with socket.socket() as probe:
                probe.settimeout(0.2)
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    taken.append(port)
    if not taken:
        return Finding("ports", Verdict.GOOD, "those of `quorumlog up` are free")
    return Finding(
        "ports", Verdict.GOOD, f"in use: {', '.join(map(str, taken))} (a cluster, if below)"
    )


async def _check_cluster(servers: list[str]) -> list[Finding]:
    async with Api(servers, seconds=5.0) as api:
        try:
            cluster = await api.get("/cluster")
        except QuorumlogError as error:
            advice = "`quorumlog up` starts a cluster; --server URL names one elsewhere"
            return [Finding("cluster", Verdict.BAD, f"no node answers: {error}", advice)]
        nodes = cluster.get("nodes", [])
        versions: set[str] = set()
        findings: list[Finding] = []
        for node in nodes:
            findings.append(await _check_node(api, node, versions))
    if len(versions) > 1:
        text = f"different versions: {', '.join(sorted(versions))}"
        findings.append(Finding("versions", Verdict.WARN, text, "bring all nodes to one version"))
    return [*findings, judge_cluster(cluster)]


async def _check_node(api: Api, node: dict[str, Any], versions: set[str]) -> Finding:
    name, url = f"node {node.get('id')}", normalise(str(node.get("http")))
    try:
        before = SystemClock().wall_micros()
        health = await api.get("/health", server=url)
        after = SystemClock().wall_micros()
        ready = await api.reply("GET", "/ready", server=url)
    except QuorumlogError as error:
        advice = "start it again, or look at its log"
        return Finding(name, Verdict.WARN, f"does not answer at {url}: {error}", advice)
    versions.add(str(health.get("version")))
    if ready.status != 200:
        reason = ready.body.decode("utf-8", "replace")[:200]
        return Finding(name, Verdict.WARN, f"not ready: {reason}", "wait, or look at its log")
    return judge_clock(name, int(health.get("time_micros", before)), before, after)


def judge_clock(name: str, theirs: int, before: int, after: int) -> Finding:
    """How far a node's clock is from ours, as far as one exchange can tell. Microseconds."""
    ahead = max(theirs - after, before - theirs, 0) / 1e6
    if ahead <= SKEW_SECONDS_MAX:
        return Finding(name, Verdict.GOOD, f"alive and ready, clock within {ahead:.2f} s of ours")
    advice = "run an NTP daemon on every machine"
    return Finding(name, Verdict.WARN, f"its clock is {ahead:.1f} s away from ours", advice)


def judge_cluster(cluster: dict[str, Any]) -> Finding:
    """The cluster as a whole, from `GET /cluster`."""
    nodes = cluster.get("nodes", [])
    storage = [one for one in nodes if "storage" in one.get("roles", ())]
    alive = [one for one in storage if one.get("alive")]
    needed = cluster.get("quorum", {}).get("w", 1)
    text = f"{len(alive)} of {len(storage)} storage nodes alive, {needed} needed for a write"
    unled = cluster.get("shards_without_leader", [])
    if len(alive) < needed:
        return Finding("cluster", Verdict.BAD, text, "start storage nodes: writes are refused")
    if unled:
        text += f"; {len(unled)} shards without leader"
        return Finding("cluster", Verdict.WARN, text, "if this stays, look for a Raft majority")
    full = [
        str(one.get("id"))
        for one in storage
        if ((one.get("status") or {}).get("storage") or {}).get("read_only")
    ]
    if full:
        text += f"; read-only: {', '.join(full)}"
        return Finding("cluster", Verdict.WARN, text, "free space on their disks")
    if len(alive) < len(storage):
        return Finding("cluster", Verdict.WARN, text, "start the missing nodes")
    return Finding("cluster", Verdict.GOOD, text)
