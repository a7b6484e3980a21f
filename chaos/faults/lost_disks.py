"""A node comes back with an empty disk, and is brought in again as docs/operations.md says.

    rejoin    a manager lost its store: refused under its old name; started with `--join` it waits, as the
              ring counts on the old store; `nodes remove` admits it with the new one, `nodes add` gives it
              shards again
    replace   a node that is no manager lost its whole disk: a fresh one takes its place (`nodes replace`)

The old store is never put back: what the node has in the end came from the others.
"""

import contextlib
import json
import shutil

from chaos.asking import until
from chaos.faults.base import Kind, Proof, Site, Targets
from chaos.faults.changes import (
    Change,
    begin,
    entries_held,
    owners,
    running_spare,
    wait_for_end,
    without_trouble,
)
from chaos.faults.processes import start_refused
from chaos.processes import FaultDidNotBite
from node.cli_errors import CliError
from node.node import STORE_FOLDER
from node.up_process import ask

#: Seconds in which a node with another store must say that it is not admitted, and keep on saying so.
WAIT_SECONDS, KEEP_SECONDS = 30.0, 2.0


class LostDisk(Kind):
    """The target is `rejoin` or `replace`; which node, is by lot."""

    name = "lost-disk"

    def bite(self, site: Site, targets: Targets) -> Proof:
        """The proof: the refusal under the old name; for `rejoin` what the node that joins is told."""
        (way,) = targets
        if way == "rejoin":
            node = site.cluster.ids[site.pick(0, len(site.cluster.ids) - 1)]
        else:
            node = next((one.id for one in site.cluster.spares if one.id in owners(site)), "")
            if not node:
                node = running_spare(site, 0)
                without_trouble(site, Change(f"/cluster/nodes/{node}/add", {}))
        held = {s: count for s, count in entries_held(site).get(node, {}).items() if count}
        before = _incarnation(site, node)
        pids = site.cluster.kill(node)
        site.notes["lost"] = node
        if way == "replace":
            site.cluster.retire(node)
        lost = site.cluster.data(node)
        lost = lost / STORE_FOLDER if way == "rejoin" else lost
        shutil.rmtree(lost)
        lost.mkdir()
        proof = {"pids": pids, "node": node, "held": held, "incarnation": before}
        proof |= start_refused(site, node)
        if way == "rejoin":
            site.cluster.start_without_waiting(node, join=True)
            proof["waits"] = _waits(site, node)
        return proof | {"seen": "its disk is empty", "way": way}

    def heal(self, site: Site, targets: Targets) -> Proof:
        """It, or who takes its place, is an owner with all that the lost one had; what it holds."""
        (way,) = targets
        cluster, lost = site.cluster, site.notes["lost"]
        node = lost
        if way == "rejoin":
            begin(site, Change(f"/cluster/nodes/{node}/remove", {}), 0)
            wait_for_end(site)
            until(f"{node} to be admitted", lambda: _ready(site, node) or None, WAIT_SECONDS, 0.1)
            begin(site, Change(f"/cluster/nodes/{node}/add", {}), 0)
        else:
            (node,) = {one.id for one in cluster.spares} - {lost}
            cluster.start_fresh(node)
            begin(site, Change(f"/cluster/nodes/{lost}/replace", {"with": node}), 0)
        wait_for_end(site)
        cluster.revive(*cluster.running)
        return {
            "came": node, "holds": entries_held(site).get(node, {}),
            "owns": node in owners(site), "new_incarnation": _incarnation(site, node),
        }  # fmt: skip

    def undo(self, site: Site, targets: Targets) -> None:
        """What runs must be ready; a lost disk stays lost."""
        with contextlib.suppress(CliError, FaultDidNotBite, OSError):
            site.cluster.start()


def _incarnation(site: Site, node: str) -> str:
    path = site.cluster.data(node) / STORE_FOLDER / "node.json"
    return str(json.loads(path.read_text())["incarnation"])


def _ready(site: Site, node: str) -> bool:
    answer = ask(site.cluster.node(node), "/ready")
    return answer is not None and answer[0] == 200


def _waits(site: Site, node: str) -> str:
    """What it says that it waits for, if it goes on to say so."""

    def look() -> str | None:
        answer = ask(site.cluster.node(node), "/ready")
        said = "" if answer is None else ", ".join(map(str, answer[1].get("waiting_for", ())))
        return said if "store" in said else None

    said = until(f"{node} to say that it waits", look, WAIT_SECONDS, 0.1)
    with contextlib.suppress(CliError):
        until("it to be admitted", lambda: _ready(site, node) or None, KEEP_SECONDS, 0.1)
        return ""  # it was, by itself
    return said


KINDS: tuple[Kind, ...] = (LostDisk(),)
