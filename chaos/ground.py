"""What a scenario stands on: a cluster, and the disks, wires and clocks of its own that it needs."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from chaos import lab
from chaos.disks import Disk
from chaos.faults import Site, clocks
from chaos.lab_net import LabNet
from chaos.local_cluster import LocalCluster
from chaos.scenarios import Scenario
from runtime.entropy import SeededEntropy


@contextmanager
def prepared(scenario: Scenario, seed: int, folder: Path) -> Iterator[Site]:
    """A cluster that is not yet started, in a new folder; afterwards all that was made is gone or stopped.

    Raises:
        DiskFailed: a disk or a wire cannot be made.
    """
    with ExitStack() as undo:
        network = None
        names = [f"node{number}" for number in range(1, scenario.nodes + scenario.spare + 1)]
        if lab.NETWORK in scenario.needs:
            network = LabNet(folder, names)
            undo.callback(network.close)
            network.make()
        own_disk = lab.DISK in scenario.needs
        cluster = LocalCluster(
            folder / "cluster",
            scenario.nodes,
            scenario.settings,
            data="disk/data" if own_disk else "data",
            hosts=list(network.addresses.values()) if network else (),
            spare=scenario.spare,
        )
        disks = _disks(scenario, cluster, undo) if own_disk else {}
        undo.callback(cluster.destroy)  # before the disks go
        if network is not None:
            cluster.within = {node: network.within(node) for node in names}
        if scenario.clocks:
            folders = {node.id: node.folder for node in cluster.plan.nodes}
            cluster.environment = {one: clocks.environment(at) for one, at in folders.items()}
        yield Site(cluster, disks=disks, network=network, lot=SeededEntropy(seed ^ 0xFA17))


def _disks(scenario: Scenario, cluster: LocalCluster, undo: ExitStack) -> dict[str, Disk]:
    disks = {}
    for node in cluster.plan.nodes:
        image = cluster.folder / f"{node.id}.img"
        disk = Disk(image, node.folder / "disk", scenario.disk_bytes)
        undo.callback(disk.close)
        disk.make()
        disks[node.id] = disk
    return disks
