"""Which holes of the own store are closed: it was compared with every other owner since. Pure.

Each acknowledged row is on an owner that did not lose it, so who has what every other owner has, lacks none
(storage.holes says who then counts again). Where there is no other owner nothing can close a hole but its
rows, or an operator who accepts the loss (`quorumlog repair --accept-loss`).
"""

from collections.abc import Mapping

#: By shard: which hole (storage.holes.Holes.numbers).
Numbers = Mapping[int, int]


class HoleBook:
    """Fed with each comparison that left nothing lacking. Kept in memory: a restart compares anew."""

    def __init__(self) -> None:
        self._compared: dict[int, tuple[int, set[str]]] = {}

    def note(self, peer: str, numbers: Numbers) -> None:
        """The store has all that `peer` has of these shards; these were their holes when that began."""
        for shard, number in numbers.items():
            known = self._compared.get(shard)
            if known is None or known[0] != number:
                known = self._compared[shard] = (number, set())
            known[1].add(peer)

    def closed(self, numbers: Numbers, peers: Mapping[int, tuple[str, ...]]) -> list[int]:
        """Those of the holes of now that every other owner of now was compared after; each is told once."""
        found = []
        for shard, number in numbers.items():
            known, others = self._compared.get(shard), peers.get(shard, ())
            if known is not None and known[0] == number and others and known[1].issuperset(others):
                found.append(shard)
                del self._compared[shard]
        return found
