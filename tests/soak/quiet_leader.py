"""Looks for changes of the Raft leader where nothing is broken, with interpreters held under load.

    python -m tests.soak.quiet_leader --minutes 30

Three nodes, each held for 50 ms at a time (`held_node`), agents that send rows, a reader, a command of the
Raft group each second; nothing is killed, stopped or cut. A leader that changes all the same has heard no
majority in time, or was not heard: a change is told with what each node went through in the half second
before it (the longest that a thread waited for a processor, new maxima of the Raft thread's lag and of a sync
of its journal). On a machine that is busy with other things some changes are the machine's: the waits say so.
Exit code 1: there was a change, a row is lost or doubled, or nothing was held.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.cluster import LocalCluster, eventually, http

AGENTS, ROWS, POLL_SECONDS = 3, 100, 0.5
SERVICE = "quiet"


@dataclass(frozen=True, slots=True)
class Figures:
    """What one node says of its Raft side, and how long its threads waited for a processor, by thread."""

    role: str
    term: int
    elections: int
    tick_lag_seconds_max: float
    fsync_seconds_max: float
    waited: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sample:
    """All nodes that answered at one moment, seconds since the start."""

    at: float
    nodes: Mapping[str, Figures]

    @property
    def term(self) -> int:
        """The highest term that anyone knows."""
        return max((one.term for one in self.nodes.values()), default=0)

    @property
    def leader(self) -> str | None:
        """Who leads in it, if it answered."""
        return next(
            (n for n, f in self.nodes.items() if f.role == "leader" and f.term == self.term), None
        )


@dataclass(frozen=True, slots=True)
class Change:
    """A term that rose between two samples."""

    at: float
    term: int
    was: str | None
    leader: str | None
    elections: Mapping[str, int]
    #: By node: the longest wait of a thread for a processor, and maxima that rose meanwhile.
    waited_seconds: Mapping[str, float]
    tick_lag_seconds: Mapping[str, float]
    fsync_seconds: Mapping[str, float]


def changes(samples: Sequence[Sample]) -> list[Change]:
    """Each rise of the term above all before, with what came before it; who is silent tells nothing."""
    found = []
    told = [one for one in samples if one.nodes]
    highest = told[0].term if told else 0
    for before, after in pairwise(told):
        if after.term <= highest:
            continue
        highest = after.term
        pairs = {n: (before.nodes[n], f) for n, f in after.nodes.items() if n in before.nodes}
        found.append(
            Change(
                after.at,
                after.term,
                before.leader,
                after.leader,
                {n: new.elections - old.elections for n, (old, new) in pairs.items()},
                {n: round(_longest_wait(old, new), 3) for n, (old, new) in pairs.items()},
                _risen(pairs, "tick_lag_seconds_max"),
                _risen(pairs, "fsync_seconds_max"),
            )
        )
    return found


def usual_waits(samples: Sequence[Sample]) -> dict[str, float]:
    """The longest wait of any node's thread between two samples: half are shorter, 99 of 100 are shorter."""
    waits = sorted(
        max(_longest_wait(before.nodes[n], f) for n, f in after.nodes.items())
        for before, after in pairwise(samples)
        if after.nodes and after.nodes.keys() <= before.nodes.keys()
    )
    if not waits:
        return {}
    return {
        "median": round(waits[len(waits) // 2], 3),
        "p99": round(waits[len(waits) * 99 // 100], 3),
    }


def _longest_wait(old: Figures, new: Figures) -> float:
    return max((w - old.waited.get(thread, 0.0) for thread, w in new.waited.items()), default=0.0)


def _risen(pairs: Mapping[str, tuple[Figures, Figures]], name: str) -> dict[str, float]:
    values = {n: (getattr(old, name), getattr(new, name)) for n, (old, new) in pairs.items()}
    return {n: round(new, 3) for n, (old, new) in values.items() if new > old}


def waited(pid: int) -> dict[int, float]:
    """Seconds that each thread was ready and had no processor, since it began (Linux)."""
    found = {}
    with suppress(OSError):  # it has ended
        for one in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found[int(one.name)] = int((one / "schedstat").read_text().split()[1]) / 1e9
    return found


class Run:
    """One run of a cluster: its load, and what was seen."""

    def __init__(self, cluster: LocalCluster, rows_per_second: int) -> None:
        self.acked = self.commands = 0
        self.samples: list[Sample] = []
        self._cluster = cluster
        self._pause = AGENTS * ROWS / rows_per_second
        self._over = asyncio.Event()
        self._begun = time.monotonic()

    async def go(self, story: Awaitable[Any]) -> None:
        """Load and looking on until the story is over; all rows that were sent are acknowledged then."""
        patience = aiohttp.ClientTimeout(total=15)
        async with (
            aiohttp.ClientSession(timeout=patience) as session,
            asyncio.TaskGroup() as tasks,
        ):
            for number in range(AGENTS):
                tasks.create_task(self._send(session, number))
            tasks.create_task(self._read(session))
            tasks.create_task(self._command(session))
            tasks.create_task(self._look())
            try:
                await story
            finally:
                self._over.set()

    async def _send(self, session: aiohttp.ClientSession, agent: int) -> None:
        batch = 0
        while not self._over.is_set():
            names = [{"service": SERVICE, "message": f"{agent} {batch} {n}"} for n in range(ROWS)]
            body = "\n".join(map(json.dumps, names)).encode()
            key = {"Idempotency-Key": f"{agent} {batch}", "Content-Type": "application/x-ndjson"}
            for turn in range(100):
                url = self._cluster.urls[(agent + turn) % len(self._cluster.urls)] + "/logs"
                with suppress(aiohttp.ClientError, TimeoutError):
                    async with session.post(url, data=body, headers=key) as answer:
                        await answer.read()
                        if answer.status == 200:
                            break
                await asyncio.sleep(0.05)
            else:
                raise AssertionError(f"batch {batch} of agent {agent} is never taken")
            self.acked += ROWS
            batch += 1
            await self._idle(self._pause)

    async def _read(self, session: aiohttp.ClientSession) -> None:
        asked = ("/query/stats?agg=count&by=level", '/query?q="7"&limit=100')
        number = 0
        while not self._over.is_set():
            number += 1
            url = self._cluster.urls[number % len(self._cluster.urls)]
            with suppress(aiohttp.ClientError, TimeoutError):
                async with session.get(url + asked[number % len(asked)]) as answer:
                    await answer.read()
            await self._idle(0.5)

    async def _command(self, session: aiohttp.ClientSession) -> None:
        while not self._over.is_set():
            url = self._cluster.urls[self.commands % len(self._cluster.urls)]
            rule = {"keep_days": 3650 + self.commands % 2}
            with suppress(aiohttp.ClientError, TimeoutError):
                async with session.put(url + "/cluster/retention", json=rule) as answer:
                    await answer.read()
                    self.commands += answer.status == 200
            await self._idle(1.0)

    async def _look(self) -> None:
        while not self._over.is_set():
            self.samples.append(await asyncio.to_thread(self._sample, len(self.samples)))
            await self._idle(POLL_SECONDS)

    async def _idle(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)

    def _sample(self, number: int) -> Sample:
        cluster = self._cluster
        at = round(time.monotonic() - self._begun, 1)
        try:
            rows = cluster.get("/cluster", number % len(cluster.ids), timeout=5)["nodes"]
        except (OSError, ValueError):
            rows = []
        pids = {node: one.pid for node, one in cluster.running.items() if one.running}
        raft = {row["id"]: row["status"]["consensus"] for row in rows if row.get("status")}
        names = ("role", "term", "elections", "tick_lag_seconds_max", "fsync_seconds_max")
        return Sample(
            at,
            {
                node: Figures(*(said[name] for name in names), waited(pids[node]))
                for node, said in raft.items()
                if node in pids
            },
        )


def run(
    folder: Path,
    seconds: float,
    hold_ms: float = 50.0,
    every_ms: float = 250.0,
    rows_per_second: int = 3_000,
    fallback_seconds: float | None = None,
) -> dict[str, Any]:
    """One run in `folder`; `changes` and `wrong` are empty if all is well."""
    cluster = LocalCluster(folder / "cluster", 3)
    notes = {node: folder / f"{node}.holds" for node in cluster.ids}
    more = [] if fallback_seconds is None else ["--fallback-seconds", str(fallback_seconds)]
    for node, note in notes.items():
        held = ["--hold-ms", str(hold_ms), "--every-ms", str(every_ms), "--note", str(note), *more]
        cluster.within[node] = [sys.executable, "-P", "-m", "tests.soak.held_node", *held, "--"]
    try:
        cluster.start()
        done = Run(cluster, rows_per_second)
        asyncio.run(done.go(asyncio.sleep(seconds)))
        wrong = judge(cluster, done.acked)
        cluster.stop()
    finally:
        cluster.destroy()
    holds = {node: json.loads(note.read_text()) for node, note in notes.items()}
    wrong += [f"{node} was never held" for node, one in holds.items() if not one["holds"]]
    last = next((one.nodes for one in reversed(done.samples) if one.nodes), {})
    return {
        "seconds": seconds,
        "samples": len(done.samples),
        "rows": done.acked,
        "commands": done.commands,
        "holds": holds,
        "tick_lag_seconds_max": {n: round(f.tick_lag_seconds_max, 3) for n, f in last.items()},
        "fsync_seconds_max": {n: round(f.fsync_seconds_max, 3) for n, f in last.items()},
        "waited_seconds_usually": usual_waits(done.samples),
        "changes": [asdict(one) for one in changes(done.samples)],
        "wrong": wrong,
    }


def judge(cluster: LocalCluster, acked: int) -> list[str]:
    """What is wrong: through each node as many rows must be counted as were acknowledged."""
    wrong = []
    for url in cluster.urls:

        def counted(url: str = url) -> Any:
            _, answer, headers = http("GET", f"{url}/query/stats?service={SERVICE}&agg=count")
            return answer if headers["X-Quorumlog-Complete"] == "true" else None

        count = eventually(counted, 60.0)["rows"][0]["count"]
        if count != acked:
            wrong.append(f"{url} counts {count} rows of {acked} acknowledged")
    return wrong


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--hold-ms", type=float, default=50.0)
    parser.add_argument("--every-ms", type=float, default=250.0, help="on average, each node")
    parser.add_argument("--rows-per-second", type=int, default=3_000)
    parser.add_argument("--fallback-seconds", type=float, help="another step-down time, to compare")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = run(
            Path(folder),
            options.minutes * 60,
            options.hold_ms,
            options.every_ms,
            options.rows_per_second,
            options.fallback_seconds,
        )
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    return 1 if report["wrong"] or report["changes"] else 0


if __name__ == "__main__":
    sys.exit(main())
