"""Cuts between nodes: what is cut, and that silence proves nothing unless there was an answer before."""

from types import SimpleNamespace
from typing import Any

import pytest

from chaos.disks import DiskFailed
from chaos.faults import KINDS, Site, network
from chaos.processes import FaultDidNotBite

NODES = ("node1", "node2", "node3")


class Wires:
    """Connections are answered unless they are cut, `dead`, or the cuts do nothing (`deaf`)."""

    def __init__(self, dead: tuple[str, ...] = (), deaf: bool = False) -> None:
        self.dead, self.deaf = dead, deaf
        self.cuts: set[tuple[str, str]] = set()
        self.heals = 0
        self.fails = False

    def cut(self, sender: str, receiver: str) -> None:
        self.cuts.add((sender, receiver))

    def reaches(self, sender: str, receiver: str, port: int) -> bool:
        return receiver not in self.dead and (self.deaf or (sender, receiver) not in self.cuts)

    def heal(self) -> None:
        self.heals += 1
        if self.fails:
            raise DiskFailed("ip: no such entry")


def site(wires: Wires) -> Site:
    """Three nodes on these wires."""
    cluster: Any = SimpleNamespace(ids=NODES, node=lambda _: SimpleNamespace(http_port=80))
    network: Any = wires
    return Site(cluster, network=network)


@pytest.mark.parametrize(
    ("kind", "targets", "lost"),
    [
        ("partition", ("node1",), "12 13 21 31"),
        ("one-way", ("node1",), "12 13"),
        ("partial-cut", ("node1", "node3"), "13 31"),
    ],
)
def test_each_cut_is_shown_by_connections_that_were_answered_before(
    kind: str, targets: tuple[str, ...], lost: str
) -> None:
    """What is lost is just what the kind says, in each direction that it says."""
    wires = Wires()

    proof = KINDS[kind].bite(site(wires), targets)

    assert wires.cuts == {(f"node{a}", f"node{b}") for a, b in lost.split()}
    assert len(proof["seen"]) == len(wires.cuts)
    assert all("does not reach" in one for one in proof["seen"])


def test_a_cut_that_does_nothing_did_not_bite() -> None:
    """They reach one another still."""
    with pytest.raises(FaultDidNotBite, match="still reaches"):
        KINDS["partition"].bite(site(Wires(deaf=True)), ("node2",))


def test_the_silence_of_a_dead_node_proves_no_cut() -> None:
    """It did not answer before either; nothing is cut then."""
    wires = Wires(dead=("node3",))

    with pytest.raises(FaultDidNotBite, match="before the cut"):
        KINDS["one-way"].bite(site(wires), ("node1",))
    assert wires.cuts == set()


def test_an_undo_raises_nothing() -> None:
    """It comes after a failure that has to be told."""
    wires = Wires()
    wires.fails = True

    KINDS["partition"].undo(site(wires), ("node1",))

    assert wires.heals == 1


class Losing(Wires):
    """Packets are counted; `dropped` of each hundred are lost."""

    def __init__(self, dropped: int) -> None:
        super().__init__()
        self.dropped, self.losing = dropped, {}

    def lose(self, node: str, one_in: int) -> None:
        self.losing[node] = one_in

    def lost(self, node: str) -> tuple[int, int]:
        return 100, self.dropped

    def lose_nothing(self, node: str) -> None:
        if node not in self.losing:
            raise DiskFailed("no such table")
        del self.losing[node]


def test_packet_loss_is_shown_by_the_kernels_count() -> None:
    """Put on each target, told with its counts, and gone after the heal."""
    wires = Losing(9)
    where = site(wires)
    where.cluster.revive = lambda *_: {}  # type: ignore[method-assign]

    proof = KINDS["packet-loss"].bite(where, NODES)
    assert set(wires.losing) == set(NODES)
    proof |= KINDS["packet-loss"].heal(where, NODES)

    assert set(wires.losing) == set()
    assert proof["one_in"] in (5, 10, 20)
    assert proof["seen"][0] == "9 of 100 packets to node1 lost"


def test_packet_loss_without_a_lost_packet_did_not_bite(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing of it stays, where it was put or not."""
    monkeypatch.setattr(network, "LOSS_SECONDS", 0.0)
    wires = Losing(0)

    with pytest.raises(FaultDidNotBite, match="no packet to node1"):
        KINDS["packet-loss"].bite(site(wires), ("node1",))
    KINDS["packet-loss"].undo(site(wires), NODES)

    assert not wires.losing
