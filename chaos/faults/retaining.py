"""Rows are hidden while a node is away: it must bring nothing back. Deletes by group, watermarks by service.

A target is `trouble:how`: `kill:delete` kills a node by lot, hides a group of rows that is stored already,
and lets the node come back. The proof names each hide with its times, from which the checkers know what
must be gone (`chaos.hides`); it is told also when the answer was lost.
"""

import contextlib
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from chaos.asking import ask, told, until
from chaos.corpus import GROUP_ROWS, SPREAD_MICROS, group_of
from chaos.faults.base import Kind, Proof, Site, Targets
from chaos.hides import DELETE, GRACE_SECONDS, WATERMARK
from chaos.processes import FaultDidNotBite
from node.cli_errors import CliError
from runtime.clock import SystemClock

#: Seconds in which a hide is taken, a watermark has moved, and removal is done on all nodes.
TAKEN_SECONDS, MOVED_SECONDS, REMOVED_SECONDS = 20.0, 20.0, 45.0
SERVICE = "chaos-"
CLOCK = SystemClock()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Hide(Kind):
    """A delete or a moving watermark with a node away."""

    name = "hide"

    def bite(self, site: Site, targets: Targets) -> Proof:
        """The proof: who was away, and what was hidden when.

        Raises:
            FaultDidNotBite: nothing is stored yet that could be hidden.
        """
        trouble, how = targets[0].split(":")
        stored = _stored(site)
        if not stored:
            raise FaultDidNotBite("nothing is stored yet")
        client = sorted(stored)[site.pick(0, len(stored) - 1)]
        node = site.cluster.ids[site.pick(0, len(site.cluster.ids) - 1)]
        blow = site.cluster.kill(node) if trouble == "kill" else site.cluster.pause(node)
        hide = _delete(site, client, stored[client]) if how == DELETE else _mark(site, client)
        proof = {"struck": node, "pids": blow, "crashed": trouble == "kill", "hides": [hide]}
        return proof | {"seen": "hidden while it was away"}

    def heal(self, site: Site, targets: Targets) -> Proof:
        """The node is back, and all nodes have removed what is deleted."""
        begun = _now()
        _revive(site)
        ready = round((_now() - begun) / 1e9, 2)

        def all_say(*wanted: str) -> bool | None:
            states = [_state(site, one["id"]) for one in told(site.cluster, "/delete")["deletes"]]
            return True if all(one in wanted for one in states) else None

        until("all nodes to hide", lambda: all_say("hidden", "removed"), REMOVED_SECONDS, 0.1)
        time.sleep(GRACE_SECONDS)  # of a watermark no node says that it knows it
        hidden_at = _now()
        until("removal on all nodes", lambda: all_say("removed"), REMOVED_SECONDS, 0.2)
        return {"hidden_at": hidden_at, "ready_seconds": ready}

    def undo(self, site: Site, targets: Targets) -> None:
        """Nobody stays away."""
        with contextlib.suppress(FaultDidNotBite, CliError, KeyError):
            _revive(site)


def _revive(site: Site) -> None:
    stopped = [node for node in site.cluster.running if site.cluster.is_stopped(node)]
    if stopped:
        site.cluster.resume(*stopped)
    site.cluster.start()


def _stored(site: Site) -> dict[str, int]:
    """Rows counted by client; none of producers that count as one with a library's buffer are left out."""
    answer = told(site.cluster, "/query/stats?by=chaos_client")
    rows = answer.get("rows", [])
    return {str(one["chaos_client"]): int(one["count"]) for one in rows if one.get("chaos_client")}


def _now() -> int:
    return int(CLOCK.monotonic() * 1e9)


def _delete(site: Site, client: str, count: int) -> dict[str, Any]:
    group = group_of(client, 1 + site.pick(0, max(0, count - 1)))
    index = int(group.rpartition(":")[2])
    body = {"service": f"{SERVICE}{client}", "q": f'chaos_group:="{group}"'}
    begun, returned = _now(), None

    def asked() -> int | None:
        answer = ask(site.cluster, "/delete", body)
        return answer[1]["rows"] if answer is not None and answer[0] == 202 else None

    rows = None
    with contextlib.suppress(CliError):
        rows = until("a delete", asked, TAKEN_SECONDS, 0.2)
        returned = _now()
    if rows == 0:
        returned = None  # nothing of it was stored, so nothing is shown by it
    first = index * GROUP_ROWS + 1
    return {
        "how": DELETE, "client": client, "first": first, "last": first + GROUP_ROWS - 1,
        "t_inv": begun, "t_ret": returned,
    }  # fmt: skip


def _mark(site: Site, client: str) -> dict[str, Any]:
    """Keeps the younger part of a service's rows; told as soon as the watermark has moved."""
    service = f"{SERVICE}{client}"
    share = 0.3 + 0.4 * site.lot.uniform(0, 1)
    body = {"service": service, "keep_days": SPREAD_MICROS * share / 1e6 / 86_400}
    begun, wall = _now(), CLOCK.wall_micros()

    def asked() -> bool | None:
        answer = ask(site.cluster, "/cluster/retention", body, method="PUT")
        return True if answer is not None and answer[0] == 200 else None

    def moved() -> int | None:
        rules = told(site.cluster, "/cluster/retention")["rules"]
        marks = [one["hidden_before"] for one in rules if one["service"] == service]
        if not marks or not marks[0]:
            return None
        return (datetime.fromisoformat(marks[0]) - _EPOCH) // timedelta(microseconds=1)

    before, returned = wall - int(SPREAD_MICROS * share), None
    with contextlib.suppress(CliError):
        until("a rule", asked, TAKEN_SECONDS, 0.2)
        before = until("a watermark", moved, MOVED_SECONDS, 0.1)
        returned = _now()
    return {
        "how": WATERMARK, "client": client, "first": 1, "last": 1, "t_inv": begun, "t_ret": returned,
        "before": before,
    }  # fmt: skip


def _state(site: Site, name: str) -> str:
    answer = ask(site.cluster, f"/delete/{name}")
    return answer[1].get("state", "") if answer is not None and answer[0] == 200 else ""


KINDS: tuple[Kind, ...] = (Hide(),)
