"""Damage at rest on one node's disk: flipped bits, zeroed pages, lost segments, lost hints; where it is left.

On one node of a run, and only blocks each entry of which was synced on another node too: where W owners had
a row W - 1 are left, which reads must make do with (storage.holes), and no row is gone for good. Half of
the time the page cache still has the sound bytes, so that only a reader who asks the disk meets the damage.
"""

from collections.abc import Iterable, Mapping

from chaos.sim.clock import Dice
from chaos.sim.corpus import SimCorpus
from chaos.sim.node import SimNode
from chaos.sim.pages import PAGE, SimFile
from chaos.sim.taps import TappedDisk, Written
from ingestor.shards import FAILED_SERVICE
from records.block_codec import EncodedBlock, open_body, parse_prefix
from records.columns import ERASED_COLUMN
from records.intervals import SeqIntervals
from storage.blocks import BlockPlace
from storage.segment_file import segment_path
from storage.wal import file_name

PAGE_LOST, FILE_LOST = "rot page", "rot file"


def rot(node: SimNode, nodes: Iterable[SimNode], kind: str, dice: Dice) -> bool:
    """Damages a block by lot, one of which nothing is here alone; whether there was one."""
    disk = node.disk
    kept = {id for one in nodes if one is not node for id in _ids(_sound(one.disk))}
    sound = [
        one for one in _sound(disk) if _ids([one]) <= kept and (one.segment or kind != FILE_LOST)
    ]
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


def rotten_seqs(nodes: Iterable[SimNode], producer: str, epoch: int) -> SeqIntervals:
    """Sequences of a producer's epoch of which a copy is damaged on some node."""
    found = SeqIntervals()
    for one in [one for node in nodes for one in node.disk.written if one.rotten]:
        for entry in one.entries:
            if (entry.producer, entry.producer_epoch) == (producer, epoch):
                found.update(entry.seqs)
    return found


def _sound(disk: TappedDisk) -> list[Written]:
    return [one for one in disk.on_platter() if one.synced and one.whole and not one.rotten]


def _ids(blocks: Iterable[Written]) -> set[bytes]:
    return {bytes(entry.entry_id) for one in blocks for entry in one.entries}


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


def damaged_in_use(node: SimNode) -> list[str]:
    """Damaged or vanished blocks that the node still takes for its copy of some entries."""
    found: list[str] = []
    damaged = [one for one in node.disk.written if one.rotten and not one.whole]
    for place in node.storage._engine.holdings.blocks:
        file = _file_of(node.disk, place)
        same = [one for one in damaged if one.file is file and one.start == place.offset]
        if file is None or same:
            found.append(f"block {place.ordinal} of {node.id}")
    return found


def _file_of(disk: TappedDisk, place: BlockPlace) -> SimFile | None:
    name = f"store/log/{file_name(place.file)}"
    if place.file < 0:
        name = f"store/segments/{segment_path(-place.file, place.min_ts, place.max_ts)}"
    return disk.names.get(name)


def altered_rows(block: EncodedBlock, corpus: SimCorpus, services: Mapping[str, str]) -> str:
    """What is wrong with the rows of a block: "" if each is what its client sends under its number.

    Rows that were blanked, as a watermark or a delete hides them, have no client any more; those of
    FAILED_SERVICE are what was refused, as it came.
    """
    if not block.header.rows:
        return ""
    body = memoryview(block.data)[parse_prefix(block.data).body[0] :]
    table = open_body(body, block.header.columns).read()
    names = ("chaos_client", "chaos_number", "message", "service", ERASED_COLUMN)
    nothing = [None] * table.num_rows
    columns = [table[one].to_pylist() if one in table.schema.names else nothing for one in names]
    for client, number, message, service, erased in zip(*columns, strict=True):
        if erased is not None or service == FAILED_SERVICE:
            continue
        sent = client in services and corpus.row(client, number, services[client])
        if not sent or sent["message"] != message:
            return f"an altered row, {client}:{number}"
    return ""
