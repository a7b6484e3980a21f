"""Memory that runs out: a group of the kernel's, with a limit, into which a running node is moved.

What the process had before stays charged to where it came from, so the limit is on what it takes from
then on: the kernel reclaims what it can (pages of files), and kills it if that is not enough. Version 1 of
control groups alone: in version 2 a group with processes has no groups below it.
"""

import contextlib
import os
from pathlib import Path

from chaos.faults.base import Kind, Proof, Site, Targets, wait_for
from chaos.processes import FaultDidNotBite

ROOT = Path("/sys/fs/cgroup/memory")
#: MiB that a node may take beyond what it has, one of these by lot.
SPARE_MIB = (8, 32, 96)
#: Seconds in which it must have met the limit.
MEET_SECONDS = 12.0


def home() -> Path:
    """The group that this process and its children are in.

    Raises:
        OSError: there are none of this kind.
    """
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, kinds, path = line.split(":", 2)
        if "memory" in kinds.split(","):
            return ROOT / path.lstrip("/")
    raise FileNotFoundError("no memory controller of version 1")


class Group:
    """A group of processes that may together take no more memory than `limit` bytes."""

    def __init__(self, name: str, limit: int) -> None:
        """Below the group that we are in, whose limits hold as well. Raises OSError if it cannot be had."""
        self._home = home()
        self.path = self._home / name
        self.path.mkdir()
        try:
            (self.path / "memory.limit_in_bytes").write_text(str(limit))
        except OSError:
            self.path.rmdir()
            raise

    def add(self, pid: int) -> None:
        """Moves a process, with all its threads."""
        (self.path / "cgroup.procs").write_text(str(pid))

    def met(self) -> int:
        """How often memory was asked for that the limit did not leave."""
        return int((self.path / "memory.failcnt").read_text())

    def close(self) -> None:
        """Moves its processes back to our own group, and removes it."""
        for pid in (self.path / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):  # it has ended
                (self._home / "cgroup.procs").write_text(pid)
        self.path.rmdir()


class LowMemory(Kind):
    """A node may take hardly any more memory; it may be killed for it."""

    name = "low-memory"

    def __init__(self) -> None:
        self._groups: dict[str, Group] = {}

    def bite(self, site: Site, targets: Targets) -> Proof:
        """The proof is the kernel's count of what it refused at first.

        Raises:
            FaultDidNotBite: the limit was never met.
        """
        spare = SPARE_MIB[site.pick(0, len(SPARE_MIB) - 1)]
        for target in targets:
            name = f"quorumlog-{os.getpid()}-{target}"
            self._groups[target] = group = Group(name, spare << 20)
            group.add(site.cluster.process(target).pid)
        for target, group in self._groups.items():
            if not wait_for(group.met, MEET_SECONDS):
                raise FaultDidNotBite(f"{target} never needed {spare} MiB more")
        return {"spare_mib": spare}

    def heal(self, site: Site, targets: Targets) -> Proof:
        """No limit; a node that was killed is started, as its supervisor would."""
        seen = [
            f"{target} met its limit {one.met():,} times" for target, one in self._groups.items()
        ]
        self._close()
        return {"seen": seen, **site.cluster.revive(*targets)}

    def undo(self, site: Site, targets: Targets) -> None:
        """No limit."""
        self._close()

    def _close(self) -> None:
        for group in self._groups.values():
            with contextlib.suppress(
                OSError
            ):  # kept by a process that is ending: empty, and harmless
                group.close()
        self._groups.clear()


def reason_against(_: Path) -> str:
    """Why memory cannot be limited here; empty if it can. Tries it once."""
    try:
        Group(f"quorumlog-{os.getpid()}-try", 64 << 20).close()
    except OSError as error:
        return f"no memory group of version 1: {error}"
    return ""


KINDS: tuple[Kind, ...] = (LowMemory(),)
