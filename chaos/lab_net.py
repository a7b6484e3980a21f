"""A network of the nodes' own: one namespace each, a bridge between, and wires that can be cut.

Inside the laboratory's network namespace (`chaos.lab`), so that no packet leaves it and nothing stays
behind. A cut is a permanent neighbour entry with a hardware address that nobody has: what one node sends to
another goes onto the wire and nobody takes it, in one direction or in both. That is silent loss as of a
pulled cable, with TCP's own timeouts, and needs nothing but iproute2 (no nft, no netem in the kernel).
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from chaos.disks import DiskFailed, command

BRIDGE, BRIDGE_ADDRESS, PREFIX = "qlbr", "10.177.0.254", "10.177.0."
NOBODY = "02:00:00:00:00:fe"


class LabNet:
    """The nodes' wires. Each node's interface is `eth0` in its own namespace."""

    def __init__(self, folder: Path, nodes: Sequence[str]) -> None:
        self._folder = folder
        self.addresses = {node: f"{PREFIX}{i}" for i, node in enumerate(nodes, 1)}
        self._holders: dict[str, subprocess.Popen[bytes]] = {}
        self._cuts: set[tuple[str, str]] = set()

    def make(self) -> None:
        """Builds it.

        Raises:
            DiskFailed: a command failed.
        """
        command("ip", "link", "add", BRIDGE, "type", "bridge")
        command("ip", "address", "add", f"{BRIDGE_ADDRESS}/24", "dev", BRIDGE)
        command("ip", "link", "set", BRIDGE, "up")
        for number, (node, address) in enumerate(self.addresses.items(), 1):
            holder = subprocess.Popen(
                ["unshare", "--net", "sh", "-c", "echo; exec cat"],  # noqa: S607
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            self._holders[node] = holder
            assert holder.stdout is not None, "made with a pipe"
            holder.stdout.read(1)  # it is in its namespace by now
            wire = f"qlw{number}"
            peer = ("peer", "name", "eth0", "netns", str(holder.pid))
            command("ip", "link", "add", wire, "type", "veth", *peer)
            command("ip", "link", "set", wire, "master", BRIDGE, "up")
            self._ip(node, "address", "add", f"{address}/24", "dev", "eth0")
            self._ip(node, "link", "set", "lo", "up")
            self._ip(node, "link", "set", "eth0", "up")

    def within(self, node: str) -> list[str]:
        """Words before a command that is to run where the node is."""
        return ["nsenter", f"--net=/proc/{self._holders[node].pid}/ns/net", "--"]

    def _ip(self, node: str, *words: str) -> None:
        command(*self.within(node), "ip", *words)

    def cut(self, sender: str, receiver: str) -> None:
        """What `sender` sends to `receiver` is lost."""
        entry = (self.addresses[receiver], "lladdr", NOBODY, "dev", "eth0", "nud", "permanent")
        self._ip(sender, "neigh", "replace", *entry)
        self._cuts.add((sender, receiver))

    def heal(self) -> None:
        """All wires are whole."""
        for sender, receiver in sorted(self._cuts):
            self._ip(sender, "neigh", "del", self.addresses[receiver], "dev", "eth0")
        self._cuts.clear()

    def reaches(self, sender: str, receiver: str, port: int) -> bool:
        """Whether a connection from where `sender` is to `receiver` is answered."""
        code = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 0.5)"
        words = [sys.executable, "-S", "-c", code, self.addresses[receiver], str(port)]
        done = subprocess.run(  # noqa: S603 - our own words
            [*self.within(sender), *words], capture_output=True, check=False, timeout=20
        )
        return done.returncode == 0

    def lose(self, node: str, one_in: int) -> None:
        """One in so many packets that arrive at a node from others is lost."""
        self._loss(node, "put", str(one_in), self.addresses[node])

    def lost(self, node: str) -> tuple[int, int]:
        """Packets that arrived there since, and how many of them were lost."""
        met, dropped = self._loss(node, "count").split()
        return int(met), int(dropped)

    def lose_nothing(self, node: str) -> None:
        """As if nothing had been."""
        self._loss(node, "remove")

    def _loss(self, node: str, *words: str) -> str:
        return command(*self.within(node), sys.executable, "-P", "-m", "chaos.lab_loss", *words)

    def close(self) -> None:
        """Ends the namespaces, and with them their wires."""
        for holder in self._holders.values():
            assert holder.stdin is not None, "made with a pipe"
            holder.stdin.close()
            try:
                holder.wait(5)
            except subprocess.TimeoutExpired:
                holder.kill()
                holder.wait()
            if holder.stdout is not None:
                holder.stdout.close()
        self._holders.clear()
        with contextlib.suppress(DiskFailed):
            command("ip", "link", "del", BRIDGE)


def reason_against(folder: Path) -> str:
    """Why such a network cannot be had here; empty if it can. Tries it once."""
    if os.geteuid() != 0:
        return "needs root"
    network = LabNet(folder, ("a", "b"))
    try:
        network.make()
        return ""
    except (DiskFailed, OSError) as error:
        return str(error)
    finally:
        network.close()
