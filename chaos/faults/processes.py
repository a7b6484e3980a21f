"""Faults of processes: killed, stopped, restarted in order, killed at a named place, robbed of the disk."""

import contextlib
import signal
from pathlib import Path

from chaos.faults.base import Kind, Proof, Site, Targets, wait_for
from chaos.processes import FaultDidNotBite
from node.cli_errors import CliError
from runtime.failpoints import LOG_VARIABLE, VARIABLE

#: Seconds in which an armed place must be passed.
FAILPOINT_SECONDS = 12.0
#: Places that a node passes under any load, and up to which pass the kill may wait.
POINTS_UNDER_LOAD = {
    "wal.before-write": 40, "wal.after-write": 40, "wal.after-sync": 40, "put.before-ack": 40,
    "catalog.before-flush": 4, "catalog.after-flush": 4,
    "compact.write": 1, "compact.sync": 1, "compact.rename": 1, "compact.sync-folders": 1,
    "compact.apply": 1, "compact.flush": 1, "compact.flushed": 1,
}  # fmt: skip
#: What a node says that refuses to start on an empty disk (`node.node`).
REFUSAL = "holds no store"
#: Seconds in which a node that must refuse to start has to end.
REFUSAL_SECONDS = 60.0


class Kill(Kind):
    """SIGKILL; the heal is a start."""

    name, at_rest = "kill", True

    def bite(self, site: Site, targets: Targets) -> Proof:
        """The proof is what `waitpid` says."""
        return {"pids": site.cluster.kill(*targets), "seen": "ended by SIGKILL"}

    def heal(self, site: Site, targets: Targets) -> Proof:
        """Started, ready."""
        site.cluster.start()
        return {}


class Pause(Kind):
    """SIGSTOP and SIGCONT."""

    name, at_rest = "pause", True

    def bite(self, site: Site, targets: Targets) -> Proof:
        """The proof is the state in the process table."""
        return {"pids": site.cluster.pause(*targets), "seen": "state T"}

    def heal(self, site: Site, targets: Targets) -> Proof:
        """Runs again, ready."""
        site.cluster.resume(*targets)
        return {}

    def undo(self, site: Site, targets: Targets) -> None:
        """One did not stop: those that did must not stay stopped."""
        for target in targets:
            with contextlib.suppress(FaultDidNotBite, CliError, KeyError):
                site.cluster.resume(target)


class Restart(Kind):
    """SIGTERM and a start: what an upgrade does to one node after another."""

    name, at_rest = "restart", True

    def bite(self, site: Site, targets: Targets) -> Proof:
        """The proof is the exit code 0 of a process that was told to end."""
        return {"exit_codes": site.cluster.stop_some(*targets), "seen": "ended upon SIGTERM"}

    def heal(self, site: Site, targets: Targets) -> Proof:
        """Started, ready."""
        site.cluster.start()
        return {}

    def undo(self, site: Site, targets: Targets) -> None:
        """It did not end in order, but it is gone."""
        with contextlib.suppress(CliError):
            site.cluster.start()


class Failpoint(Kind):
    """The node is started with one place armed, and kills itself in passing it."""

    name, at_rest = "failpoint", True

    def bite(self, site: Site, targets: Targets) -> Proof:
        """The proof is the place's name in a file, written before it acted, and the end by SIGKILL."""
        (target,) = targets
        names = list(POINTS_UNDER_LOAD)
        point = names[site.pick(0, len(names) - 1)]
        at = site.pick(1, POINTS_UNDER_LOAD[point])
        note = site.cluster.node(target).folder / "failpoints.log"
        note.unlink(missing_ok=True)
        site.cluster.kill(target)
        armed = {VARIABLE: f"{point}=kill@{at}", LOG_VARIABLE: str(note)}
        site.cluster.start_without_waiting(target, environment=armed)
        process = site.cluster.running[target]
        if not wait_for(lambda: not process.running, FAILPOINT_SECONDS):
            raise FaultDidNotBite(f"{target} did not pass {point} {at} times")
        code = process.exit_code
        del site.cluster.running[target]
        seen = note.read_text().split() if note.exists() else []
        if code != -signal.SIGKILL or seen != [point]:
            raise FaultDidNotBite(f"{target} ended with {code} after {seen}, not at {point}")
        return {"point": point, "pass": at, "seen": "ended by SIGKILL, its name is noted"}

    def heal(self, site: Site, targets: Targets) -> Proof:
        """Started with nothing armed, ready."""
        site.cluster.start()
        return {}

    def undo(self, site: Site, targets: Targets) -> None:
        """A node that is armed must not stay."""
        with contextlib.suppress(FaultDidNotBite, KeyError):
            site.cluster.kill(*targets)
        with contextlib.suppress(CliError):
            site.cluster.start()


class Wipe(Kind):
    """The disk is replaced by an empty one: under its old name the node must be refused."""

    name, at_rest = "wipe", True

    def bite(self, site: Site, targets: Targets) -> Proof:
        """`refused`: it ended by itself, and said that its disk is empty; not for another reason."""
        (target,) = targets
        pids = site.cluster.kill(target)
        data, kept = _aside(site, target)
        data.rename(kept)
        data.mkdir()
        return {"pids": pids, **start_refused(site, target)}

    def heal(self, site: Site, targets: Targets) -> Proof:
        """The old disk comes back; whatever the empty one gathered is dropped."""
        (target,) = targets
        data, kept = _aside(site, target)
        data.rename(data.with_name(f"{data.name}-wiped-{site.pick(0, 10**9)}"))
        kept.rename(data)
        site.cluster.start()
        return {}

    def undo(self, site: Site, targets: Targets) -> None:
        """The old disk must not stay aside, nor a node on the empty one run on."""
        (target,) = targets
        if _aside(site, target)[1].exists():
            if target in site.cluster.running:
                site.cluster.end_somehow(target)
            with contextlib.suppress(CliError, OSError):
                self.heal(site, targets)


def start_refused(site: Site, target: str) -> Proof:
    """What becomes of a start on an empty disk under the old name: it must end by itself, and say why."""
    said = len(site.cluster.log_text(target))
    process = site.cluster.start_without_waiting(target)
    ended = wait_for(lambda: not process.running, REFUSAL_SECONDS)
    if not ended:
        site.cluster.kill(target)
    site.cluster.running.pop(target, None)
    code = process.exit_code
    why = REFUSAL in site.cluster.log_text(target)[said:]
    refused = ended and code not in (0, None) and why
    return {"refused": refused, "exit_code": code, "says_why": why}


def _aside(site: Site, target: str) -> tuple[Path, Path]:
    data = site.cluster.data(target)
    return data, data.with_name(f"{data.name}-aside")


KINDS: tuple[Kind, ...] = (Kill(), Pause(), Restart(), Failpoint(), Wipe())
