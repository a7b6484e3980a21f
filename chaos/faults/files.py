"""Damage to a stopped node's files: a flipped bit, a zeroed page, a torn tail, a lost file, an old one.

Only one node of a run is ever damaged: N - W of N=3. The proof is the file's hash before and after. What is
damaged stays damaged: the node has to start all the same, and to get from its peers what it lacks.
"""

import hashlib
from pathlib import Path

from chaos.faults.base import Kind, Proof, Site, Targets
from chaos.processes import FaultDidNotBite
from node.cli_errors import CliError

PAGE = 4096


class Corrupt(Kind):
    """kill -9, one file of one kind damaged in one way by lot, start."""

    name, at_rest = "corrupt", True

    def bite(self, site: Site, targets: Targets) -> Proof:
        """What was done to which file, and its hashes."""
        (target,) = targets
        site.cluster.kill(target)
        home = site.cluster.data(target) / "store"
        path = _choose(site, home)
        before = _hash(path)
        way = _ways(path)[site.pick(0, len(_ways(path)) - 1)]
        where = damage(path, way, site)
        after = _hash(path)
        if before == after:
            raise FaultDidNotBite(f"{way} of {path.name} changed nothing")
        name = str(path.relative_to(home))
        return {"file": name, "way": way, "at": where, "sha256": [before, after]}

    def heal(self, site: Site, targets: Targets) -> Proof:
        """A plain start: what is damaged is the node's own affair."""
        site.cluster.start()
        return {}

    def undo(self, site: Site, targets: Targets) -> None:
        """The nodes run on."""
        try:
            site.cluster.start()
        except CliError:
            return  # seen at the end of the run, as a node that ended by itself


def damage(path: Path, way: str, site: Site) -> int:
    """Damages a file; where. `flip` and `zero` fall on bytes that were written, not on reserved space."""
    data = bytearray(path.read_bytes())
    used = len(data.rstrip(b"\0"))
    if way == "lose":
        path.unlink()
        return 0
    if used < 2:
        raise FaultDidNotBite(f"{path.name} is empty")
    at = site.pick(0, used - 1)
    if way == "tear":
        path.write_bytes(data[:at])
        return at
    if way == "flip":
        data[at] ^= 1 << site.pick(0, 7)
    else:
        at -= at % PAGE
        data[at : at + PAGE] = bytes(len(data[at : at + PAGE]))
    path.write_bytes(data)
    return at


def _choose(site: Site, home: Path) -> Path:
    """A log file, a segment or the catalog; the log more often."""
    groups = [
        sorted((home / "log").glob("*.qlog")),
        sorted((home / "log").glob("*.qlog")),
        sorted(path for path in (home / "segments").rglob("*") if path.is_file()),
        [path for path in [home / "catalog.sqlite"] if path.exists()],
    ]
    groups = [group for group in groups if group]
    if not groups:
        raise FaultDidNotBite(f"nothing is stored in {home}")
    group = groups[site.pick(0, len(groups) - 1)]
    return group[site.pick(0, len(group) - 1)]


def _ways(path: Path) -> tuple[str, ...]:
    """A log's tail may be torn, a catalog may be lost: both are made anew. A segment may be anything."""
    return ("flip", "flip", "zero", "tear") if path.suffix == ".qlog" else (
        "flip", "zero", "tear", "lose"
    )  # fmt: skip


def _hash(path: Path) -> str:
    if not path.exists():
        return ""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


KINDS: tuple[Kind, ...] = (Corrupt(),)
