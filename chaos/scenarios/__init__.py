"""What is broken in which scenario; one file each, found by name.

A scenario is a recipe for faults and a bar for what must have been acknowledged meanwhile. The
workload and the checkers are the same for all: no scenario chooses what is looked at.
"""

from dataclasses import dataclass

from chaos.nemesis import Recipe


@dataclass(frozen=True, slots=True)
class Scenario:
    """`aim`: what it is meant to break. `links`: clients reach the nodes through links.

    `rows_per_second_min`: fewer acknowledged prove too little.
    """

    name: str
    title: str
    aim: str
    recipe: Recipe
    nodes: int = 3
    rows_per_second_min: float = 20.0
    links: bool = False


def scenarios() -> dict[str, Scenario]:
    """All scenarios by name, in the order in which they are worth running."""
    from chaos.scenarios import (
        cut_answers,
        kill_all,
        kill_one,
        kill_raft_leader,
        lose_majority,
        lost_replies,
        pause,
        slow_link,
    )

    modules = (kill_one, kill_all, kill_raft_leader, pause, lose_majority, lost_replies)
    modules += (cut_answers, slow_link)
    return {module.SCENARIO.name: module.SCENARIO for module in modules}
