"""Comparing the entry lists of a shard's replicas: what the data owner lacks, and what must be hidden. Pure.

A replica decides visibility from the entries that it holds (records.visibility); over the union of two
replicas more may be hidden than either knows: an entry whose sequences overlap those of an older block that
only the other one has. Hiding only grows with the set, so the union's answer is the replicas' answers
minus what is told here. The base's own block ids count for what it holds, as its answers rest on them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from records.block import Spans
from records.ids import EntryId
from records.visibility import EntryRef, Hidden, hidden_parts

#: In ScanRequest.hide, no spans mean the whole entry.
WHOLE: Spans = ()
Hides = dict[EntryId, Spans]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One shard, seen from its base (the owner that gave the data).

    `lacking`: entries that the base lacks -> who holds them; `wanted`: those with visible rows.
    `base_hide`: for a repeated scan of the base: what the union hides, and all it lacks (an entry that
    arrives meanwhile must not be counted twice). `holder_hide`: for the scans of the wanted entries.
    `overlaps`: the base's first answer holds rows that the union hides. `disputed`: replicas keep
    overlapping entries in different blocks, so their views of who hides whom may disagree.
    `lacks_by_node`: what each replica lacks of the union, for repair.
    """

    base: str
    lacking: dict[EntryId, tuple[str, ...]]
    wanted: tuple[EntryId, ...]
    base_hide: Hides
    holder_hide: Hides
    overlaps: bool
    disputed: bool
    lacks_by_node: dict[str, frozenset[EntryId]]


def fullest(lists: Mapping[str, Sequence[EntryRef]], prefer: str) -> str:
    """The replica that lacks least; `prefer` among equals."""
    return max(lists, key=lambda node: (len(lists[node]), node == prefer, node))


def compare(base: str, lists: Mapping[str, Sequence[EntryRef]]) -> Comparison:
    """Compares the lists of all replicas that answered, of which `base` is one."""
    held = {ref.entry_id: ref for ref in lists[base]}
    lacking: dict[EntryId, tuple[str, ...]] = {}
    union = dict(held)
    for node, refs in lists.items():
        for ref in refs if node != base else ():
            if ref.entry_id in held:
                continue
            known = union.get(ref.entry_id)
            if known is None or ref.block_id < known.block_id:
                union[ref.entry_id] = ref
                lacking[ref.entry_id] = (node, *lacking.get(ref.entry_id, ()))
            else:
                lacking[ref.entry_id] = (*lacking[ref.entry_id], node)
    alone, together = hidden_parts(held.values()), hidden_parts(union.values())
    newly = {e: _spans(union[e], h) for e, h in together.items() if e in held and h != alone.get(e)}
    holder_hide = {e: _spans(union[e], h) for e, h in together.items() if e in lacking}
    wanted = tuple(e for e in lacking if not together.get(e, Hidden()).whole)
    ids = {node: {ref.entry_id for ref in refs} for node, refs in lists.items()}
    return Comparison(
        base,
        lacking,
        wanted,
        base_hide={**newly, **{e: union[e].seqs or WHOLE for e in lacking}},
        holder_hide=holder_hide,
        overlaps=bool(newly),
        disputed=_disputed({*newly, *holder_hide}, union, lists),
        lacks_by_node={
            node: frozenset(e for e in union if e not in found)
            for node, found in ids.items()
            if len(found) < len(union)
        },
    )


def _spans(ref: EntryRef, hidden: Hidden) -> Spans:
    return ref.seqs or WHOLE if hidden.whole else hidden.seqs


def _disputed(
    hidden: set[EntryId], union: dict[EntryId, EntryRef], lists: Mapping[str, Sequence[EntryRef]]
) -> bool:
    """Whether an entry of a producer with hidden parts lies in different blocks on two replicas."""
    producers = {union[e].producer for e in hidden if union[e].producer}
    if not producers:
        return False
    blocks: dict[EntryId, bytes] = {}
    for ref in (one for refs in lists.values() for one in refs if one.producer in producers):
        if blocks.setdefault(ref.entry_id, ref.block_id) != ref.block_id:
            return True
    return False
