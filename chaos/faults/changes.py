"""Changes of the ring as a fault asks for them: begun, watched in their stages, waited for, and never two at
once.

Any node that answers is asked. Changes of N, W and R are noted in `Site.quorums` with the times between which
either quorum may be in force: the checkers judge by the quorum of the time.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from chaos.asking import ask, told, until
from chaos.faults.base import Site
from chaos.processes import FaultDidNotBite
from node.cli_errors import CliError
from runtime.clock import SystemClock

#: Bytes per second of a change that is to be met while it copies, and shards that move at once.
RATE, PARALLEL = 400_000, 4
#: Shards that move at once in a change that nobody is to meet.
PARALLEL_FAST = 16
#: Seconds in which a change must begin, reach a stage, and end once all is well again.
BEGIN_SECONDS, STAGE_SECONDS, END_SECONDS = 20.0, 30.0, 60.0
#: A move of no shard, for changes that are met before any of theirs.
NO_MOVE: Mapping[str, Any] = {"shard": None, "from": None, "to": None}
_CLOCK = SystemClock()


@dataclass(frozen=True, slots=True)
class Change:
    """What is asked of the cluster. `quorum`: N, W and R after it, if they are others."""

    path: str
    body: dict[str, Any]
    quorum: tuple[int, ...] = ()


def now() -> int:
    """Nanoseconds of the history's clock."""
    return int(_CLOCK.monotonic() * 1e9)


def begin(
    site: Site,
    change: Change,
    rate: int = RATE,
    parallel: int = PARALLEL,
    avoid: Collection[str] = (),
) -> int:
    """Begins a change; its number. `avoid`: nodes that would only be waited for.

    Raises:
        CliError: it is refused, or nobody takes it in time.
    """
    body = {**change.body, "parallel": parallel, "bytes_per_second": rate}

    def asked() -> int | None:
        answer = ask(site.cluster, change.path, body, avoid=avoid)
        if answer is None:
            return None
        status, value = answer
        if status == 202:
            return int(value["change"])
        if status in (404, 409) and _reason(value) != "CHANGE_RUNNING":
            return None  # the ring stepped on, or the node has not registered yet
        running = running_change(site, avoid)
        if running:  # the first try was taken, and its answer lost
            return running
        raise CliError(f"{change.path} is refused: {value}")

    if change.quorum:
        before = quorum_in_force(site, avoid)
        note = {"before": before, "after": list(change.quorum), "asked_at": now()}
        site.quorums.append({**note, "ended_at": None})
    return until(f"{change.path} to begin", asked, BEGIN_SECONDS, 0.2)


def wait_for_end(site: Site) -> int:
    """The ring epoch once no change runs.

    Raises:
        CliError: it does not end; with what it waits for.
    """

    def look() -> int | None:
        answer = ask(site.cluster, "/cluster/moves")
        if answer is None or answer[1].get("change", True):
            return None
        return int(answer[1]["ring_epoch"])

    try:
        ended = until("the end of a change", look, END_SECONDS, 0.1)
    except CliError as error:
        state = ask(site.cluster, "/cluster/moves")
        raise CliError(f"{error}; {None if state is None else str(state[1])[:400]}") from error
    for note in site.quorums:
        if note["ended_at"] is None:
            note["ended_at"] = now()
    return ended


def without_trouble(site: Site, change: Change) -> None:
    """A change from its begin to its end, at full speed."""
    begin(site, change, 0, PARALLEL_FAST)
    wait_for_end(site)


def second(
    site: Site, number: int, change: Change, avoid: Collection[str] = ()
) -> dict[str, str]:  # fmt: skip
    """What other changes are told while this one runs, by path; {} if it had ended before all were asked.

    They ask for nothing that would be another ring or quorum if it came too late. (Whether one was taken all
    the same is seen in the control history, too.)
    """
    quorum = change.quorum or quorum_in_force(site, avoid)
    wanted: dict[str, dict[str, Any]] = {
        "/cluster/rebalance": {},
        "/cluster/settings": dict(zip("nwr", quorum, strict=True)),
    }
    answers = {path: ask(site.cluster, path, body, avoid=avoid) for path, body in wanted.items()}
    if running_change(site, avoid) != number:
        return {}
    return {
        path: "no answer" if one is None else f"{one[0]} {_reason(one[1])}"
        for path, one in answers.items()
    }


def _reason(value: Any) -> str:
    detail = value.get("error", value) if isinstance(value, dict) else {}
    return str(detail.get("reason", detail.get("code", "")) if isinstance(detail, dict) else detail)


def running_change(site: Site, avoid: Collection[str] = ()) -> int:
    """The number of the change under way, 0 if there is none."""
    running = told(site.cluster, "/cluster/moves", avoid=avoid)["change"]
    return int(running["id"]) if running else 0


def in_stage(
    site: Site, number: int, stage: str, role: str, stored: set[int]
) -> dict[str, Any]:  # fmt: skip
    """A move of the change that is in that stage, of a shard with rows, and has somebody in that role.

    Raises:
        FaultDidNotBite: the change ended before.
    """

    def look() -> dict[str, Any] | None:
        answer = ask(site.cluster, "/cluster/moves")
        change = answer[1].get("change") if answer is not None else None
        if change is not None and change["id"] != number:
            change = None
        if answer is not None and change is None:
            raise FaultDidNotBite(f"change {number} ended before it was seen {stage}")
        for one in (change or {}).get("moving", []):
            cast = one["to"] or "new-node" not in role
            if one["stage"] == stage and one["shard"] in stored and cast:
                return one
        return None

    return until(f"a shard to be {stage}", look, STAGE_SECONDS)


# -- who owns what -------------------------------------------------------------------------------


def running_spare(site: Site, number: int) -> str:
    """A spare by number; it has joined and runs."""
    spare = site.cluster.spares[number].id
    if spare not in site.cluster.running:
        site.cluster.start_fresh(spare)
    return spare


def owners(site: Site, avoid: Collection[str] = ()) -> set[str]:
    """Nodes that own shards."""
    shards = told(site.cluster, "/cluster/shards", avoid=avoid)["shards"]
    return {owner for one in shards for owner in one["owners"]}


def writers(site: Site, move: Mapping[str, Any]) -> set[str]:
    """Owners of a shard that moves, old and new; all owners if no shard is named."""
    if move["shard"] is None:
        return owners(site)
    shards = told(site.cluster, "/cluster/shards")["shards"]
    (row,) = [one for one in shards if one["shard"] == move["shard"]]
    named = {node for group in row["writes_to"] for node in group}
    return named | {move["from"]} - {None}


def quorum_in_force(site: Site, avoid: Collection[str] = ()) -> list[int]:
    """N, W and R, as some node knows them."""
    found = told(site.cluster, "/cluster/control", avoid=avoid)["quorum"]
    return [int(found[name]) for name in "nwr"]


def entries_held(site: Site) -> dict[str, dict[int, int]]:
    """How many entries each node that answers holds, by shard."""
    nodes = told(site.cluster, "/cluster")["nodes"]
    stores = {one["id"]: (one.get("status") or {}).get("storage") for one in nodes}
    return {
        node: {int(s): held["entries"] for s, held in store["shards"].items() if held["entries"]}
        for node, store in stores.items()
        if store
    }
