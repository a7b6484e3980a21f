"""Gathers what no client sees, from the first request to the nodes' end: looks, dumps, managers' logs.

One for a run with nodes of its own; it writes `evidence.jsonl` (`chaos.evidence`). Whenever all nodes are
down at once their stores are dumped before the first of them is started again: then nothing can have
repaired anything.
"""

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from chaos import control
from chaos.control import Watch
from chaos.dumps import dump_store
from chaos.evidence import COLD, END, Dump, Evidence
from chaos.local_cluster import LocalCluster
from node.node import STORE_FOLDER
from records.errors import QuorumlogError


class Witness:
    """From `begin` to `close`. All calls block but `begin`."""

    def __init__(self, cluster: LocalCluster, folder: Path) -> None:
        self._cluster, self._scratch = cluster, folder / "dumps"
        self._evidence = Evidence(folder)
        self._watch: Watch | None = None
        self._now: Callable[[], int] = lambda: 0
        self._nodes: Sequence[str] = ()
        self._cold = 0

    def begin(self, now: Callable[[], int]) -> None:
        """Looks from now on. `now`: nanoseconds of the history's clock."""
        self._now = now
        self._cluster.before_cold_start = self._dump_cold
        self._watch = Watch(self._cluster, self._evidence, now)
        self._watch.start()

    def _dump_cold(self) -> None:
        self._cold += 1
        for node in self._cluster.members:
            self._dump(node, COLD, self._cold)

    def _dump(self, node: str, moment: str, event: int = 0) -> None:
        store, t = self._cluster.data(node) / STORE_FOLDER, self._now()
        try:
            dump = dump_store(node, store, self._scratch, t, moment, event)
        except (QuorumlogError, OSError, sqlite3.Error) as error:
            dump = Dump(node, t, moment, {}, {}, (f"it cannot be opened: {error}",), event)
        self._evidence.note(dump)

    def rest(self) -> None:
        """The last looks; the nodes still run."""
        self._nodes = sorted(self._cluster.running)
        if self._watch is not None:
            self._watch.stop()

    def after(self) -> None:
        """All nodes have ended: their stores, and the managers' logs."""
        for node in self._nodes:
            self._dump(node, END)
        self._scratch.mkdir(exist_ok=True)
        for node in self._cluster.ids:
            self._evidence.note(control.manager_log(node, self._cluster.data(node), self._scratch))
        for lead in control.leads(self._cluster):
            self._evidence.note(lead)

    def close(self) -> None:
        """No looks, and no lines, any more."""
        self._cluster.before_cold_start = None
        if self._watch is not None:
            self._watch.abandon()
        self._evidence.close()
