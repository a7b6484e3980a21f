"""Kills managers while commands are agreed, for as long as you like, and looks for every acknowledged one.

    python -m tests.soak.raft_kills --seconds 240 --seed 1

Three processes, six writers, `kill -9` of one to three managers about once a second, compaction every few
hundred entries, some commands that nobody can apply. Each writer owns names of its own and raises their
versions by compare-and-set; so an acknowledged command is a version that must stay, and that no other
command may have got. In the end all managers must have the same history (a hash over all commands).
"""

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.raft_group import CallFailed, ManagerProcess, RaftGroup, until

WRITERS, NAMES = 6, 20
#: Of a hundred commands, how many no manager can apply.
POISON_PERCENT = 2
POISON: tuple[tuple[str, dict[str, Any]], ...] = (
    ("NoSuchCommand", {}),
    ("PutSchema", {"name": 7}),
    ("SetRing", {"expected_ring_epoch": 0, "map": {"nonsense": [1]}, "stage": "new"}),
)
#: Seconds that a command may take, and until all agree after the last kill.
COMMAND_SECONDS, AGREE_SECONDS = 2.0, 60.0
SIGKILLED = -9


@dataclass
class Report:
    """What was done and found; `wrong` is empty if nothing was lost."""

    acked: int = 0
    unknown: int = 0
    refused: int = 0
    poison: int = 0
    kills: int = 0
    wrong: list[str] = field(default_factory=list)
    #: Versions acknowledged by name, and commands sent for it.
    versions: dict[str, set[int]] = field(default_factory=dict)
    sent: Counter[str] = field(default_factory=Counter)


class _Writer:
    """Raises the versions of its names through any manager."""

    def __init__(self, number: int, group: RaftGroup, dice: random.Random, report: Report) -> None:
        self._names = [f"w{number}.{k}" for k in range(NAMES)]
        self._group, self._dice, self._report = group, dice, report
        self._known: dict[str, int] = {}

    async def run(self, over: asyncio.Event) -> None:
        """Until `over`; pauses when no manager runs."""
        while not over.is_set():
            running = self._group.running
            if running:
                await self._one(self._dice.choice(running))
            await asyncio.sleep(0.002 if running else 0.05)

    async def _one(self, manager: ManagerProcess) -> None:
        if self._dice.random() * 100 < POISON_PERCENT:
            await self._poison(manager)
            return
        report, name = self._report, self._dice.choice(self._names)
        if name not in self._known:
            state = await _asked(manager, "barrier", timeout=COMMAND_SECONDS)
            if not isinstance(state, dict):
                return
            self._known[name] = state["schemas"].get(name, 0)
        expected = self._known.pop(name)
        args = {"name": name, "expected_version": expected, "body": f"{name}@{expected}" * 20}
        report.sent[name] += 1
        answer = await _asked(
            manager, "propose", op="PutSchema", args=args, timeout=COMMAND_SECONDS
        )
        if isinstance(answer, int):
            self._acknowledged(name, expected, answer)
        elif answer == "REFUSED":
            report.refused += 1
        else:
            report.unknown += 1

    def _acknowledged(self, name: str, expected: int, version: int) -> None:
        report = self._report
        got = report.versions.setdefault(name, set())
        if version != expected + 1 or version in got:
            report.wrong.append(
                f"{name}: version {version} acknowledged after {expected}: {sorted(got)}"
            )
        got.add(version)
        report.acked += 1
        self._known[name] = version

    async def _poison(self, manager: ManagerProcess) -> None:
        op, args = self._dice.choice(POISON)
        answer = await _asked(manager, "propose", op=op, args=args, timeout=COMMAND_SECONDS)
        self._report.poison += 1
        if isinstance(answer, int):
            self._report.wrong.append(f"{op} {args} was acknowledged: {answer}")


async def _asked(manager: ManagerProcess, method: str, **args: Any) -> Any:
    """The answer; REFUSED if it was refused for sure, None if nothing is known."""
    try:
        return await manager.call(method, wait=3 * COMMAND_SECONDS, **args)
    except CallFailed as error:
        return "REFUSED" if error.reason else None
    except (TimeoutError, ConnectionError, RuntimeError):  # the process ends just now
        return None


async def _kill(group: RaftGroup, dice: random.Random, report: Report, over: asyncio.Event) -> None:
    while not over.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), dice.uniform(0.5, 1.5))
        victims = dice.sample(list(group.managers.values()), dice.choice((1, 1, 1, 2, 3)))
        for one in victims:
            if not one.running and one.process is not None and one.process.returncode != SIGKILLED:
                report.wrong.append(f"{one.node} ended by itself: {one.process.returncode}")
            await one.kill()
            report.kills += 1
        await asyncio.sleep(dice.uniform(0.0, 1.0))
        for one in victims:
            await one.start()


async def run(folder: Path, seconds: float, seed: int, compaction_entries: int = 300) -> Report:
    """One run of a group in `folder`. Raises what starting a manager raises."""
    report, over = Report(), asyncio.Event()
    async with RaftGroup(folder, compaction_entries=compaction_entries) as group:
        writers = [
            _Writer(number, group, random.Random(f"{seed}/{number}"), report)
            for number in range(WRITERS)
        ]
        async with asyncio.TaskGroup() as tasks:
            for one in writers:
                tasks.create_task(one.run(over))
            tasks.create_task(_kill(group, random.Random(seed), report, over))
            await asyncio.sleep(seconds)
            over.set()
        await _judge(group, report)
    return report


async def _judge(group: RaftGroup, report: Report) -> None:
    for one in group.managers.values():
        if not one.running:
            report.wrong.append(f"{one.node} does not run")
    await until(lambda: _asked(group.running[0], "barrier", timeout=COMMAND_SECONDS), AGREE_SECONDS)
    try:
        state = await group.states_agree(AGREE_SECONDS)
    except TimeoutError:
        report.wrong.append("the managers' states do not become equal")
        return
    for name, acked in report.versions.items():
        version = state["schemas"].get(name, 0)
        if not max(acked) <= version <= report.sent[name]:
            found = (
                f"{name}: version {version}, acknowledged {max(acked)}, sent {report.sent[name]}"
            )
            report.wrong.append(found)


def main() -> int:
    """The command; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = asyncio.run(run(Path(folder), options.seconds, options.seed))
    kept = ("acked", "unknown", "refused", "poison", "kills", "wrong")
    sys.stdout.write(json.dumps({name: getattr(report, name) for name in kept}) + "\n")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
