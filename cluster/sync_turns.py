"""Whose turn it is to be compared with: one peer after the other, soon again while there is something to
copy. Pure.

found and copied something     again after AGAIN seconds: what was too new to be compared comes next
the ring moved meanwhile       again after AGAIN seconds, by the new one
equal                          after the interval
differs, but nothing to copy   twice the time as last time, up to the most: the peer lacks it, or a conflict
failed                         twice the time as last time, up to the most
was away and is back           at once
a block was set aside here     at once, all of them
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

AGAIN_SECONDS = 1.0


@dataclass(slots=True)
class _Turn:
    at: float
    wait: float
    alive: bool = True


class PeerTurns:
    """When each peer is due. Peers that are believed dead are skipped, not forgotten."""

    def __init__(self, interval_seconds: float, wait_seconds_max: float) -> None:
        self._interval, self._most = interval_seconds, wait_seconds_max
        self._turns: dict[str, _Turn] = {}

    def due(self, alive_by_peer: Mapping[str, bool], now: float) -> str | None:
        """The peer that has been due for the longest time, if any is. A new peer is due at once."""
        for peer in self._turns.keys() - alive_by_peer.keys():
            del self._turns[peer]
        for peer, alive in alive_by_peer.items():
            turn = self._turns.setdefault(peer, _Turn(now, self._interval))
            if alive and not turn.alive:
                turn.at, turn.wait = now, self._interval
            turn.alive = alive
        ready = [(t.at, peer) for peer, t in self._turns.items() if t.alive and t.at <= now]
        return min(ready)[1] if ready else None

    def soon(self, peer: str, now: float) -> None:
        """Something was copied from it, there is more, or the ring has moved."""
        self._set(peer, now + AGAIN_SECONDS, self._interval)

    def equal(self, peer: str, now: float) -> None:
        """Both have the same."""
        self._set(peer, now + self._interval, self._interval)

    def fruitless(self, peer: str, now: float) -> None:
        """It failed, or there is a difference that copying from it does not mend."""
        turn = self._turns.get(peer)
        if turn is not None:
            self._set(peer, now + turn.wait, min(2 * turn.wait, self._most))

    def at_once(self, peers: Iterable[str], now: float) -> None:
        """These are due now."""
        for peer in peers:
            self._set(peer, now, self._interval)

    def _set(self, peer: str, at: float, wait: float) -> None:
        if peer in self._turns:
            self._turns[peer].at, self._turns[peer].wait = at, wait
