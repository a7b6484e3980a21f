"""Comparing the entry lists of a shard's replicas: what the data owner lacks, and what must be hidden. Pure.

A replica decides visibility from the entries that it holds (records.visibility); over the union of two
replicas it may be another: an entry may overlap an older one that only the other has. The union is seen
with the base's own references for what it holds, so the base needs to hide more, never less, of overlapping
sequences. Entries asked for by name are shown as the union says, whatever their holder thinks.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from records.block import Spans
from records.ids import EntryId
from records.intervals import SeqIntervals
from records.visibility import EntryRef, Hidden, hidden_parts

#: In ScanRequest.hide, no spans mean the whole entry.
WHOLE: Spans = ()
SHOWN = Hidden()
Hides = dict[EntryId, Spans]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One shard, seen from its base (the owner that gave the data).

    `wanted`: entries to ask for by name -> who holds them: what the base lacks, where rows of it are visible,
    and what the base hides though the union shows it. `wanted_hide`: what is hidden of these.
    `lacking`: how many the base lacks.
    `base_hide`: for a repeated scan of the base: what the union hides, and all it lacks (an entry that
    arrives meanwhile must not be counted twice). `overlaps`: the base's first answer holds rows that the
    union hides. `lacks_by_node`: what each replica lacks of the union, whenever received, for repair.
    """

    base: str
    wanted: dict[EntryId, tuple[str, ...]]
    wanted_hide: Hides
    base_hide: Hides
    overlaps: bool
    lacking: int
    lacks_by_node: dict[str, frozenset[EntryId]]


def hold_the_same(left: Iterable[EntryRef], right: Sequence[EntryRef]) -> bool:
    """Whether an entry of one side and one of the other may hold the same row under two entry ids."""
    spans: dict[tuple, SeqIntervals] = {}
    for ref in right:
        if ref.producer:
            spans.setdefault(ref.producer, SeqIntervals()).update(ref.seqs)
    names, before = {ref.entry_id for ref in right}, {ref.previous for ref in right if ref.previous}
    return any(
        ref.entry_id in before
        or ref.previous in names
        or (ref.producer in spans and any(spans[ref.producer].overlap(*one) for one in ref.seqs))
        for ref in left
    )


def received_by(refs: Sequence[EntryRef], until: int | None) -> Sequence[EntryRef]:
    """Those in the snapshot; all, if there is none."""
    return refs if until is None else [ref for ref in refs if ref.received_at <= until]


def fullest(lists: Mapping[str, Sequence[EntryRef]], prefer: str, until: int | None = None) -> str:
    """The replica that lacks least of the snapshot; `prefer` among equals."""
    held = {node: len(received_by(refs, until)) for node, refs in lists.items()}
    return max(held, key=lambda node: (held[node], node == prefer, node))


def compare(
    base: str, told: Mapping[str, Sequence[EntryRef]], until: int | None = None
) -> Comparison:
    """Compares the lists of all replicas that answered, of which `base` is one.

    Args:
        until: the snapshot, microseconds. An entry that one replica received by then and another later (it
            had missed it, and it was sent again) is lacking there: that replica's answer is without it.
    """
    lists = {node: received_by(refs, until) for node, refs in told.items()}
    held = {ref.entry_id: ref for ref in lists[base]}
    lacking: dict[EntryId, tuple[str, ...]] = {}
    union = dict(held)
    for node, refs in lists.items():
        for ref in refs if node != base else ():
            if ref.entry_id in held:
                continue
            known = union.get(ref.entry_id)
            if known is None or ref.received_at < known.received_at:
                union[ref.entry_id] = ref
                lacking[ref.entry_id] = (node, *lacking.get(ref.entry_id, ()))
            else:
                lacking[ref.entry_id] = (*lacking[ref.entry_id], node)
    alone, together = hidden_parts(held.values()), hidden_parts(union.values())
    newly = {e: _spans(union[e], h) for e, h in together.items() if e in held and h != alone.get(e)}
    wanted = {e: holders for e, holders in lacking.items() if not together.get(e, SHOWN).whole}
    # Of repeats of the same bytes, the union may show one that the base hides: its `previous` is hidden.
    wanted |= {e: (base,) for e, h in alone.items() if h.whole and not together.get(e, SHOWN).whole}
    ids = {node: {ref.entry_id for ref in refs} for node, refs in told.items()}
    return Comparison(
        base,
        wanted,
        wanted_hide={e: _spans(union[e], together[e]) for e in wanted if e in together},
        base_hide={**newly, **{e: union[e].seqs or WHOLE for e in lacking}},
        overlaps=bool(newly),
        lacking=len(lacking),
        lacks_by_node={
            node: frozenset(lacked)
            for node, found in ids.items()
            if (lacked := union.keys() - found)
        },
    )


def _spans(ref: EntryRef, hidden: Hidden) -> Spans:
    return ref.seqs or WHOLE if hidden.whole else hidden.seqs
