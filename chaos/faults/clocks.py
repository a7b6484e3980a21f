"""Wall clocks that jump: by hours, forth and back, while the process runs. Durations stay right.

Nodes of such a run read microseconds to add from a file of their own (`runtime.clock.OffsetClock`).
"""

import http.client
from pathlib import Path

from chaos.faults.base import Kind, Proof, Site, Targets
from chaos.processes import FaultDidNotBite
from runtime.clock import OFFSET_VARIABLE

#: Seconds that a clock is wrong by, one by lot.
JUMPS = (-3600, 3600, -30, 30, 86_400)


def offset_file(folder: Path) -> Path:
    """Where a node of that folder looks."""
    return folder / "clock-offset"


def environment(folder: Path) -> dict[str, str]:
    """What such a node is started with."""
    return {OFFSET_VARIABLE: str(offset_file(folder))}


class Jump(Kind):
    """The wall clocks of the targets are suddenly wrong, each by another lot."""

    name = "clock-jump"

    def bite(self, site: Site, targets: Targets) -> Proof:
        """The proof is the time that /health tells before and after."""
        seen = {}
        for target in targets:
            seconds = JUMPS[site.pick(0, len(JUMPS) - 1)]
            before = _time(site, target)
            _write(site, target, seconds)
            told = (_time(site, target) - before) / 1e6
            if abs(told - seconds) > 5:
                raise FaultDidNotBite(f"{target}'s clock moved by {told:.1f} s, not {seconds}")
            seen[target] = f"moved by {told:.1f} s"
        return {"seen": seen}

    def heal(self, site: Site, targets: Targets) -> Proof:
        """Right again: another jump."""
        for target in targets:
            _write(site, target, 0)
        return site.cluster.revive(*targets)

    def undo(self, site: Site, targets: Targets) -> None:
        """Right again."""
        for target in targets:
            _write(site, target, 0)


def _write(site: Site, target: str, seconds: int) -> None:
    path = offset_file(site.cluster.node(target).folder)
    draft = path.with_suffix(".new")
    draft.write_text(str(seconds * 1_000_000))
    draft.rename(path)  # whole or not at all: it is read at any moment


def _time(site: Site, target: str) -> int:
    try:
        answer = site.cluster.get("/health", site.cluster.ids.index(target), timeout=5)
        return int(answer["time_micros"])
    except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
        raise FaultDidNotBite(f"{target} does not tell its time: {error}") from error


KINDS: tuple[Kind, ...] = (Jump(),)
