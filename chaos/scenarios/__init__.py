"""What is broken in which scenario; one file each, listed in ORDER.

A scenario is a recipe for faults and a bar for what must have been acknowledged meanwhile. The
workload and the checkers are the same for all: no scenario chooses what is looked at. How to add one stands
in docs/reliability.md.
"""

import importlib
from dataclasses import dataclass

from chaos.nemesis import Recipe


@dataclass(frozen=True, slots=True)
class Scenario:
    """`aim`: what it is meant to break. `links`: clients reach the nodes through links.

    `needs`: what `chaos.lab` tries (disk, network, strace, loss, memory); it is skipped, with the reason,
    where one cannot be had. `settings`: TOML for each node. `rows_per_second_min`: fewer acknowledged prove
    too little. `disk_bytes`: of each node, if it has a disk of its own. `clocks`: wall clocks can be moved.
    `spare`: nodes beside `nodes` that are not in the cluster when it starts. `sweep`: has the clients that
    `cut-sweep` needs.
    """

    name: str
    title: str
    aim: str
    recipe: Recipe
    nodes: int = 3
    spare: int = 0
    rows_per_second_min: float = 20.0
    links: bool = False
    needs: tuple[str, ...] = ()
    settings: str = ""
    disk_bytes: int = 2 << 30
    clocks: bool = False
    sweep: bool = False


#: In the order in which they are worth running.
ORDER = (
    "kill_one", "kill_all", "kill_raft_leader", "pause", "lose_majority", "rolling_restart",
    "leader_flapping", "failpoints",
    "lost_replies", "cut_answers", "cut_sweep", "slow_link", "sliced_link", "swizzle",
    "power_cut", "power_cut_all", "disk_full", "sync_errors", "slow_disk", "stalled_disk",
    "corruption", "wiped_disk", "lost_disk",
    "partition", "one_way", "partial_cut", "packet_loss", "clock_jumps", "few_fds", "low_memory",
    "join", "drain", "replace", "move_cut", "move_two", "quorum", "copies", "retention", "mix",
)  # fmt: skip


def scenarios() -> dict[str, Scenario]:
    """All scenarios by name, in that order."""
    modules = (importlib.import_module(f"chaos.scenarios.{name}") for name in ORDER)
    return {module.SCENARIO.name: module.SCENARIO for module in modules}
