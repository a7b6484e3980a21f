"""Whom to ask next: members, the shard's leader as far as hints tell, who is down. Pure.

Rule (Raft's client rule with epochs): follow the hint with the newest epoch, else ask any ingestor.
A hint is older if it is of the same shard and has a lower shard epoch, or of another shard (a producer's
shard follows its epoch) and has a lower ring epoch. A leader that did not answer is avoided for a while,
and the others are then asked *without* the wish for a hint, so that they pass the request on: they may
reach the leader when we cannot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import LeaderHint

#: Seconds for which a node that failed is asked only if no other is left. Longer spares time-outs on
#: a dead node, shorter uses a restarted one sooner.
DOWN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Target:
    """One address to ask; `want_hint`: let it answer NOT_LEADER rather than pass the request on."""

    url: str
    want_hint: bool


class Leaders:
    """The map of one producer. Addresses are URLs without a trailing slash."""

    def __init__(self, servers: Iterable[str]) -> None:
        self._seeds = [normalise(server) for server in servers]
        if not self._seeds:
            raise ValueError("at least one server is needed")
        self._members: list[str] = []
        self._leader: LeaderHint | None = None
        self._down_until: dict[str, float] = {}
        self._turn = 0

    @property
    def known(self) -> list[str]:
        """Members first, then the given servers that are not among them."""
        return list(dict.fromkeys([*self._members, *self._seeds]))

    @property
    def leader(self) -> LeaderHint | None:
        """The newest hint."""
        return self._leader

    def target(self, now: float) -> Target:
        """Whom to ask at `now` (monotonic seconds)."""
        leader = self._leader
        if leader is not None and not self._is_down(leader.http, now):
            return Target(leader.http, want_hint=True)
        known = self.known
        up = [url for url in known if not self._is_down(url, now)]
        if leader is not None and len(up) > 1:
            up = [url for url in up if url != leader.http]
        choice = up or known
        return Target(choice[self._turn % len(choice)], want_hint=leader is None)

    def _is_down(self, url: str, now: float) -> bool:
        return self._down_until.get(url, now) > now

    def on_hint(self, asked: str, hint: LeaderHint | None) -> bool:
        """`asked` is not the leader; True if the hint leads somewhere new."""
        if hint is None or not hint.http:
            self._forget(asked)
            return False
        hint = LeaderHint(
            hint.node, normalise(hint.http), hint.shard, hint.shard_epoch, hint.ring_epoch
        )
        held = self._leader
        if held is not None and _age(hint, held) < 0:
            self._turn += 1
            return False
        self._leader = hint
        if hint.http == asked:  # it names itself, but will not act: ask another
            self._forget(asked)
            return False
        return held is None or held.http != hint.http

    def _forget(self, url: str) -> None:
        if self._leader is not None and self._leader.http == url:
            self._leader = None
        self._turn += 1

    def on_refusal(self, url: str) -> None:
        """`url` answered that it cannot serve now. If it led, it may do so no more: ask around."""
        self._forget(url)

    def on_failure(self, url: str, now: float) -> None:
        """`url` did not answer, or broke: leave it alone for a while."""
        self._down_until[url] = now + DOWN_SECONDS
        self._turn += 1

    def on_success(self, url: str) -> None:
        """`url` answered."""
        self._down_until.pop(url, None)

    def on_nodes(self, answer: Mapping[str, Any]) -> None:
        """Takes over `GET /cluster/nodes`: the members that are ingestors and have an address."""
        nodes = answer.get("nodes")
        found = [
            normalise(str(node["http"]))
            for node in (nodes if isinstance(nodes, list) else [])
            if isinstance(node, dict)
            and node.get("http")
            and ("roles" not in node or "ingestor" in node["roles"])
        ]
        if found:
            self._members = found


def normalise(address: str) -> str:
    """`host:port` or a URL -> a URL without a trailing slash."""
    address = address.strip().rstrip("/")
    return address if "://" in address else f"http://{address}"


def hint_from(raw: object) -> LeaderHint | None:
    """The `leader` object of an error answer, or None if it names nobody."""
    if not isinstance(raw, Mapping) or not raw.get("http"):
        return None

    def number(name: str) -> int:
        value = raw.get(name)
        return value if isinstance(value, int) else 0

    return LeaderHint(
        node=str(raw.get("node", "")),
        http=str(raw["http"]),
        shard=number("shard"),
        shard_epoch=number("shard_epoch"),
        ring_epoch=number("ring_epoch"),
    )


def _age(new: LeaderHint, held: LeaderHint) -> int:
    """Negative if `new` is older than `held`."""
    if new.shard != held.shard:
        return new.ring_epoch - held.ring_epoch
    return new.shard_epoch - held.shard_epoch
