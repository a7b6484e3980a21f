"""A node whose store comes from an older copy is refused like one that lost its disk: real processes."""

import shutil
from pathlib import Path

import pytest

from node import up_process
from tests.support.cluster import eventually, running_cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def test_a_restored_backup_of_one_node_is_not_admitted(tmp_path: Path) -> None:
    """The copy has the id of the store, and was made two starts ago. The true one is admitted afterwards."""
    with running_cluster(tmp_path / "c") as cluster:
        node = cluster.node("node3")
        store, copy, true = (node.folder / name for name in ("store", "copy", "true"))
        cluster.kill("node3")
        shutil.copytree(store, copy)
        for _ in range(2):
            cluster.start_one("node3")
            cluster.kill("node3")

        store.rename(true)
        copy.rename(store)
        cluster.start_without_waiting("node3")

        def waits() -> bool:
            answer = up_process.ask(node, "/ready")
            waiting = answer[1].get("waiting_for", []) if answer else []
            return any("store is an older copy" in one for one in waiting)

        eventually(waits, 60.0)
        cluster.kill("node3")
        shutil.rmtree(store)
        true.rename(store)
        cluster.start_one("node3")
