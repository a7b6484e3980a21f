"""Invariants that are judged from inside: restart, equality of owners, the control history."""

from collections.abc import Collection, Iterable

from chaos.history import FINAL, OK, READ, Op
from chaos.sim.consensus import SimLog
from chaos.sim.corpus import time_of
from chaos.sim.node import SimNode
from chaos.sim.owning import may_lack, owner_sets
from chaos.sim.taps import TappedDisk
from cluster.state_types import ClusterState
from records.block import EntryHeader
from records.intervals import SeqIntervals
from storage.producers import group_key

Broken = list[tuple[str, str]]


def check_restart(node: SimNode, state: ClusterState, broken: Broken) -> None:
    """I15: what was synced is there, and what is known of producers is what the stored entries say."""
    holdings = node.storage._engine.holdings
    for entry in unexcused(node.disk, node.present()):
        if may_lack(state, node.id, entry):
            continue
        text = f"{node.id} lost an entry of {entry.producer or entry.service}"
        broken.append(("I15", f"{text} that fdatasync had returned for"))
    recomputed: dict[tuple, SeqIntervals] = {}
    for one in node.disk.on_platter():
        for entry in one.entries:
            if entry.sequenced and holdings.table.find(entry.entry_id) is not None:
                spans = recomputed.setdefault(group_key(entry), SeqIntervals())
                spans.update(entry.seqs)
                spans.update(entry.skips)
    for key, spans in recomputed.items():
        held = holdings.producers.held.get(key)
        known = SeqIntervals(held.spans()) if held else SeqIntervals()
        lacking = [gap for a, b in spans for gap in known.gaps(a, b)]
        if lacking:
            broken.append(("I15", f"{node.id} forgot {lacking} of {key} after a restart"))


def unexcused(disk: TappedDisk, held: Collection[bytes]) -> list[EntryHeader]:
    """Entries that were synced on a disk and are not `held`, although no copy of theirs there has rotted.

    Or one has, and a later one, from a repair or a merge, is sound.
    """
    lacking: dict[bytes, EntryHeader] = {}
    rotten: dict[bytes, int] = {}
    for number, one in enumerate(disk.written):
        if one.synced:
            ids = {bytes(entry.entry_id): entry for entry in one.entries}
            lacking.update({id: entry for id, entry in ids.items() if id not in held})
            if one.rotten:
                rotten.update(dict.fromkeys(ids, number))
    if not lacking:
        return []
    numbers = {id(one): number for number, one in enumerate(disk.written)}
    sound = {
        bytes(entry.entry_id): numbers[id(one)]
        for one in disk.on_platter()
        if one.whole and not one.rotten
        for entry in one.entries
    }
    return [entry for id, entry in lacking.items() if sound.get(id, -1) >= rotten.get(id, -1)]


def equal_owners(nodes: Iterable[SimNode], state: ClusterState) -> list[str]:
    """I8: a shard's owners have the same digests and the same entries, others nothing; what differs."""
    found = []
    up = [node for node in nodes if node.up]
    for shard in range(state.shard_count):
        owners = owner_sets(state, shard)[0]
        digests = {node.id: node.storage.digest(shard) for node in up if node.id in owners}
        every = {node.id: _entries(node, shard) for node in up}
        entries = {id: one for id, one in every.items() if id in owners}
        first = next(iter(entries.values()), frozenset())
        if any(one != first for one in entries.values()):
            sizes = {id: len(one) for id, one in entries.items()}
            found.append(f"shard {shard}: owners hold different entries, {sizes}")
        elif len(set(digests.values())) > 1:
            found.append(f"shard {shard}: equal entries, other digests: {digests}")
        for id, one in every.items():
            if id not in owners and one:
                found.append(f"shard {shard}: {id} holds {len(one)} entries and is no owner")
            elif id in owners and digests[id][0] != len(one):
                found.append(f"shard {shard}: {id} counts {digests[id][0]} of {len(one)} entries")
    return found


def _entries(node: SimNode, shard: int) -> frozenset[tuple[bytes, bytes]]:
    holdings = node.storage._engine.holdings
    numbers = holdings.entries_in_hours(shard, -(1 << 62), 1 << 62)
    refs = [holdings.ref(number) for number in numbers]
    return frozenset((bytes(ref.entry_id), ref.content_hash) for ref in refs)


def check_control(log: SimLog, broken: Broken) -> None:
    """I10: ring epoch and shard epochs rise by one, each shard epoch has one leader."""
    leaders: dict[tuple[int, int], str] = {}
    for before, after in zip(log.states, log.states[1:], strict=False):
        if after.ring_epoch not in (before.ring_epoch, before.ring_epoch + 1):
            broken.append(("I10", f"ring epoch {before.ring_epoch} became {after.ring_epoch}"))
        if after.ring != before.ring and after.ring_epoch == before.ring_epoch:
            broken.append(("I10", f"two rings of epoch {after.ring_epoch}"))
        for shard, lead in after.leaders.items():
            known = before.leaders.get(shard)
            if known is not None and lead != known and lead.epoch != known.epoch + 1:
                broken.append(("I10", f"shard {shard}: epoch {known.epoch} became {lead.epoch}"))
            if leaders.setdefault((shard, lead.epoch), lead.node) != lead.node:
                broken.append(("I10", f"shard {shard}: two leaders of epoch {lead.epoch}"))


def check_order(ops: Iterable[Op], numbered: Collection[str], broken: Broken) -> None:
    """I17: through any node a client's rows come by time, a producer's of one time by sequence."""
    for op in ops:
        if op.kind not in (READ, FINAL) or op.outcome != OK:
            continue
        last: dict[str, tuple[int, int]] = {}
        for name, _ in op.resp["rows"]:
            client, _, number = name.rpartition(":")
            if not client:
                continue
            place = (time_of(int(number)), int(number) if client in numbered else 0)
            if place < last.get(client, place):
                broken.append(("I17", f"{name} is not in order, read from {op.node} (op {op.id})"))
                break
            last[client] = place
