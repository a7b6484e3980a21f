"""Damage at rest on one node's disk: flipped bits, zeroed pages, lost segments, lost hints; and where it is left.

Only what was synced, and is a block, is damaged, and on one node of a run at most (N - W): the copies that
other owners were asked to keep stay. Half of the time the page cache still has the sound bytes, so that only
a reader who asks the disk meets the damage.
"""

from chaos.sim.clock import Dice
from chaos.sim.disk import PAGE, SimFile
from chaos.sim.node import SimNode
from chaos.sim.taps import TappedDisk, Written
from storage.blocks import BlockPlace
from storage.wal import file_name

PAGE_LOST, FILE_LOST = "rot page", "rot file"
HINTS_LOST = "hints lost"


def rot(disk: TappedDisk, kind: str, dice: Dice) -> bool:
    """Damages a block by lot; whether there was one."""
    sound = [one for one in disk.on_platter() if one.synced and one.whole and not one.rotten]
    if kind == FILE_LOST:
        sound = [one for one in sound if one.segment]
    if not sound:
        return False
    chosen = dice.pick(sound)
    if kind == FILE_LOST:
        for names in (disk.names, disk.durable_names):
            for name in [one for one, file in names.items() if file is chosen.file]:
                del names[name]
        chosen.rotten = True
        return True
    at = dice.number(chosen.start, chosen.end - 1)
    low, high = at, at + 1
    if kind == PAGE_LOST:
        low, high = max(at // PAGE * PAGE, chosen.start), min((at // PAGE + 1) * PAGE, chosen.end)
    for content in _contents(chosen.file, dice.chance(0.5)):
        content[low:high] = bytes(high - low) if kind == PAGE_LOST else [content[at] ^ 1 << at % 8]
    for one in disk.written:
        if one.file is chosen.file and one.start < high and low < one.end and not one.whole:
            one.rotten = True
    return chosen.rotten


def _contents(file: SimFile, cached: bool) -> list[bytearray]:
    return [file.platter] if cached else [file.platter, file.cache]


def lose_hints(disk: TappedDisk) -> bool:
    """All hints vanish; whether there were any."""
    found = False
    for names in (disk.names, disk.durable_names):
        for name in [one for one in names if one.startswith("store/hints/")]:
            del names[name]
            found = True
    return found


def damaged_in_use(node: SimNode) -> list[Written]:
    """Damaged blocks that the node still takes for its copy of some entries."""
    places = {_where(place) for place in node.storage._engine.holdings.blocks}
    names = {id(file): name for name, file in node.disk.names.items()}
    return [
        one
        for one in node.disk.written
        if one.rotten
        and (not one.whole or id(one.file) not in names)
        and (_name(one, names), one.start) in places
    ]


def _where(place: BlockPlace) -> tuple[str, int]:
    if place.file < 0:
        return f"{-place.file:08d}", 0
    return file_name(place.file), place.offset


def _name(one: Written, names: dict[int, str]) -> str:
    name = names.get(id(one.file), one.name).rpartition("/")[2]
    return name.partition(".")[0] if one.segment else name
