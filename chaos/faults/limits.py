"""Resources that run out: file descriptors, taken from a running process by the kernel's limit."""

import contextlib
import os
import resource
import socket

from chaos.faults.base import Kind, Proof, Site, Targets
from chaos.faults.links import ask
from chaos.processes import FaultDidNotBite

#: Descriptors beyond those in use.
SPARE = 2
#: Connections that are opened and held, so that the limit is met.
HELD = 12
#: Seconds in which a node without a limit answers.
ANSWER_SECONDS = 1.0


class FewFds(Kind):
    """A node may open hardly anything more, neither a connection nor a file."""

    name = "few-fds"

    def __init__(self) -> None:
        self._before: dict[str, tuple[int, int, int]] = {}

    def bite(self, site: Site, targets: Targets) -> Proof:
        """The proof is the count of open descriptors at the limit while new connections stay unanswered."""
        seen = {}
        for target in targets:
            node = site.cluster.node(target)
            before, _ = ask(f"{node.host}:{node.http_port}", ANSWER_SECONDS)
            if before != "answered":
                raise FaultDidNotBite(f"{target} {before} before there was a limit")
            pid = site.cluster.process(target).pid
            used = len(os.listdir(f"/proc/{pid}/fd"))
            soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            self._before[target] = (pid, soft, hard)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + SPARE, hard))
            seen[target] = self._probe(site, target, used + SPARE)
        return {"seen": seen}

    def _probe(self, site: Site, target: str, limit: int) -> str:
        node = site.cluster.node(target)
        held: list[socket.socket] = []
        try:
            for _ in range(HELD):
                with contextlib.suppress(OSError):
                    held.append(socket.create_connection((node.host, node.http_port), 2))
            answer, _ = ask(f"{node.host}:{node.http_port}", ANSWER_SECONDS)
        finally:
            for one in held:
                one.close()
        if answer == "answered":
            raise FaultDidNotBite(f"{target} still takes connections with a limit of {limit}")
        return f"limit {limit}, a new connection {answer}"

    def heal(self, site: Site, targets: Targets) -> Proof:
        """The limit is as it was."""
        self._restore()
        return site.cluster.revive(*targets)

    def undo(self, site: Site, targets: Targets) -> None:
        """The limit is as it was."""
        self._restore()

    def _restore(self) -> None:
        for pid, soft, hard in self._before.values():
            with contextlib.suppress(OSError):
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        self._before.clear()


KINDS: tuple[Kind, ...] = (FewFds(),)
