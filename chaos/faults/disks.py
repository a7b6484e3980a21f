"""Faults of disks: power cuts, full ones, failing, slow and stalled ones.

Power, space and stalls are those of a file system of the node's own (`chaos.disks`); errors and delays of
single calls come from strace, which attaches to the process and answers in the kernel's place.
"""

import contextlib
import subprocess
import threading
import time
from pathlib import Path

from chaos.disks import Disk, DiskFailed
from chaos.faults.base import Kind, Proof, Site, Targets, wait_for
from chaos.processes import FaultDidNotBite
from node.cli_errors import CliError

#: Seconds in which a disk's own thaw comes, if we do not.
FREEZE_SECONDS_MAX = 20.0
#: Seconds in which strace must have answered in the kernel's place.
INJECT_SECONDS = 8.0
#: Microseconds that each sync of a slow disk waits.
SLOW_SYNC_MICROS = 200_000
SYNCS = "fsync,fdatasync"


def _disk(site: Site, target: str) -> Disk:
    if target not in site.disks:
        raise DiskFailed(f"{target} has no disk of its own in this run")
    return site.disks[target]


class PowerCut(Kind):
    """The disk's caches are lost and the process ends, of one node or of all at once."""

    name, at_rest = "power-cut", True

    def bite(self, site: Site, targets: Targets) -> Proof:
        """The proof is a file that was written, never synced, and is gone."""
        disks = {target: _disk(site, target) for target in targets}
        for disk in disks.values():
            disk.cut_power()
        pids = site.cluster.end_somehow(*targets)
        for disk in disks.values():
            disk.detach()
            disk.attach()
        kept = [target for target, disk in disks.items() if not disk.witness_lost()]
        if kept:
            raise FaultDidNotBite(f"what was never synced is still there on {', '.join(kept)}")
        return {"pids": pids, "seen": "a file that was never synced is lost"}

    def heal(self, site: Site, targets: Targets) -> Proof:
        """Started, ready."""
        site.cluster.start()
        return {}

    def undo(self, site: Site, targets: Targets) -> None:
        """The nodes are gone, whatever was lost: mounted and started."""
        for target in targets:
            disk = site.disks.get(target)
            if disk is not None and not disk.mount.is_mount():
                with contextlib.suppress(DiskFailed):
                    disk.attach()
        with contextlib.suppress(CliError):
            site.cluster.start()


class Full(Kind):
    """No byte is left."""

    name = "disk-full"

    def bite(self, site: Site, targets: Targets) -> Proof:
        """The proof is the error that a write of ours meets."""
        filled, seen = {target: _disk(site, target).fill() for target in targets}, ""
        for target in targets:
            try:
                (site.disks[target].mount / "probe").write_bytes(bytes(1 << 16))
            except OSError as error:
                seen = str(error.strerror)
            else:
                raise FaultDidNotBite(f"there is still room on {target}")
        return {"bytes": filled, "seen": seen}

    def heal(self, site: Site, targets: Targets) -> Proof:
        """Room is made. A node that ended for want of it is started again, as its supervisor would."""
        for target in targets:
            site.disks[target].free()
            (site.disks[target].mount / "probe").unlink(missing_ok=True)
        return site.cluster.revive(*targets)

    def undo(self, site: Site, targets: Targets) -> None:
        """Room is made."""
        for target in targets:
            if target in site.disks:
                site.disks[target].free()


class Stalled(Kind):
    """Writes wait, for seconds; then they go on as if nothing had been."""

    name = "disk-stall"

    def bite(self, site: Site, targets: Targets) -> Proof:
        """The proof is a write of ours that does not return."""
        for target in targets:
            _disk(site, target).freeze(FREEZE_SECONDS_MAX)
        returned = threading.Event()
        probe = site.disks[targets[0]].mount / "probe"
        writer = threading.Thread(target=_write_then, args=(probe, returned), daemon=True)
        writer.start()
        if returned.wait(0.3):
            raise FaultDidNotBite(f"a write on {targets[0]} went through")
        return {"seen": "a write does not return"}

    def heal(self, site: Site, targets: Targets) -> Proof:
        """Thawed."""
        for target in targets:
            site.disks[target].thaw()
        return site.cluster.revive(*targets)

    def undo(self, site: Site, targets: Targets) -> None:
        """Thawed."""
        for target in targets:
            if target in site.disks:
                site.disks[target].thaw()


def _write_then(path: Path, returned: threading.Event) -> None:
    with contextlib.suppress(OSError):
        path.write_bytes(b"probe")
    returned.set()


class _Traced(Kind):
    """strace answers fsync and fdatasync of the targets in its own way, while it is attached.

    `brief`: it lets go as soon as it has done so once.
    """

    how, mark = "", ""
    brief = False

    def __init__(self) -> None:
        self._tracers: list[tuple[subprocess.Popen[bytes], Path]] = []

    def bite(self, site: Site, targets: Targets) -> Proof:
        """The proof is strace's own record of a call that it tampered with."""
        seen = {}
        for target in targets:
            node = site.cluster.node(target)
            record = node.folder / "strace.out"
            record.unlink(missing_ok=True)
            words = ["strace", "-qq", "-f", "-p", str(site.cluster.process(target).pid)]
            words += ["-e", f"trace={SYNCS}", "-e", f"inject={SYNCS}:{self.how}", "-o", str(record)]
            try:
                child = subprocess.Popen(  # noqa: S603 - fixed words
                    words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
            except OSError as error:
                raise FaultDidNotBite(f"strace: {error}") from error
            self._tracers.append((child, record))
            marked = lambda record=record: self.mark in _text(record)  # noqa: E731
            if not wait_for(marked, INJECT_SECONDS, 0.002 if self.brief else 0.05):
                raise FaultDidNotBite(f"no sync of {target} was tampered with")
            line = next(one for one in _text(record).splitlines() if self.mark in one)
            seen[target] = line.strip()[-120:]
        return {"seen": seen} | ({"tampered": self._let_go()} if self.brief else {})

    def heal(self, site: Site, targets: Targets) -> Proof:
        """strace lets go. A node that gave up its log is started again, as the runbook says."""
        counts = {} if self.brief else {"tampered": self._let_go()}
        time.sleep(0.2)
        return {**counts, **site.cluster.revive(*targets, if_read_only=True)}

    def undo(self, site: Site, targets: Targets) -> None:
        """strace lets go."""
        self._let_go()

    def _let_go(self) -> int:
        count = 0
        for child, record in self._tracers:
            child.terminate()
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            count += _text(record).count(self.mark)
        self._tracers.clear()
        return count


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


class SyncErrorOnce(_Traced):
    """One sync fails; the next would succeed, and lie: the kernel has dropped the pages.

    strace counts calls in each thread for itself, so other threads' first syncs fail as well until it has
    let go, some milliseconds later; `tampered` says how many did.
    """

    name, how, mark = "sync-error-once", "error=EIO:when=1", "(INJECTED)"
    brief = True


class SyncErrors(_Traced):
    """Every sync fails."""

    name, how, mark = "sync-errors", "error=EIO", "(INJECTED)"


class SlowSyncs(_Traced):
    """Every sync takes long."""

    name, how, mark = "slow-syncs", f"delay_enter={SLOW_SYNC_MICROS}", "(DELAYED)"


KINDS: tuple[Kind, ...] = (
    PowerCut(), Full(), Stalled(), SyncErrorOnce(), SyncErrors(), SlowSyncs()
)  # fmt: skip
