"""Holes: shards of which this node lost entries to damage, and has not become whole again. Pure.

Where W owners had a row and one lost its copy, that one and an owner that never had the row would agree
that there is none. So from the moment a block is set aside its owner speaks for what it holds, and does not
count where R owners are needed, until either

* all that the block held is here again, by whatever way it came; or
* it has been compared with every other owner since (cluster.sync_holes), as of a moment after all that it
  had heard of; or
* an operator has accepted the loss.

What stood in a block without a readable header is not known: then each shard may have a hole.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

#: Ids remembered of one shard; of a greater hole only that it is there. 100,000 are about 8 MB.
IDS_MAX = 100_000
#: Stands for every shard in what is persisted.
EVERYWHERE = -1
_ID_BYTES = 16
#: (shard, newest receipt before it, whether the ids are known, the ids): a row of the catalog.
HoleRow = tuple[int, int, int, bytes]


@dataclass(frozen=True, slots=True)
class _Hole:
    """`number`: which damage, counted in this process. `until`: nothing in it was received later."""

    number: int
    until: int
    lacking: set[bytes] | None = None


class Holes:
    """By shard. Falsy as long as nothing was ever damaged."""

    def __init__(self) -> None:
        self._holes: dict[int, _Hole] = {}
        self._everywhere: _Hole | None = None
        #: Shards that are whole again although there was a hole everywhere.
        self._whole: set[int] = set()
        self._number = 0
        #: Whether anything has changed that a restart must know.
        self.dirty = False

    def __bool__(self) -> bool:
        return bool(self._holes) or self._everywhere is not None

    # -- what happens

    def add(self, shard: int, lacking: Iterable[bytes] | None, until: int) -> None:
        """Entries of a shard were lost; None: it is not known which. `until`: microseconds."""
        known = self._holes.get(shard)
        ids = None if lacking is None else set(lacking)
        if known is not None:
            until = max(until, known.until)
            ids = None if ids is None or known.lacking is None else ids | known.lacking
        if ids is not None and len(ids) > IDS_MAX:
            ids = None
        self._holes[shard] = _Hole(self._next(), until, ids)

    def add_everywhere(self, until: int) -> None:
        """It is not known of which shards entries were lost."""
        before = self._everywhere.until if self._everywhere else until
        self._everywhere = _Hole(self._next(), max(until, before))
        self._whole.clear()

    def _next(self) -> int:
        self._number, self.dirty = self._number + 1, True
        return self._number

    def arrived(self, shard: int, entry_id: bytes) -> None:
        """An entry was filed."""
        hole = self._holes.get(shard)
        if hole is None or hole.lacking is None:
            return
        hole.lacking.discard(bytes(entry_id))
        if not hole.lacking:
            del self._holes[shard]
            self.dirty = True

    def settle(self, present: Callable[[bytes], bool]) -> None:
        """Takes what is present for arrived: after a start, as ids are not noted one by one."""
        for shard, hole in list(self._holes.items()):
            for entry_id in [one for one in hole.lacking or () if present(one)]:
                self.arrived(shard, entry_id)

    def forget(self, shards: Iterable[int]) -> None:
        """These shards are whole: compared with everybody, copied anew, or their loss is accepted."""
        for shard in shards:
            before = len(self._whole)
            self.dirty |= self._holes.pop(shard, None) is not None
            if self._everywhere is not None:
                self._whole.add(shard)
                self.dirty |= len(self._whole) > before

    def heard(self, until: int) -> None:
        """What is lost of every shard was received by `until` at the latest: set once more is known."""
        if self._everywhere is not None and self._everywhere.until < until:
            self._everywhere = _Hole(self._everywhere.number, until)

    # -- asking

    def within(self, shards: Iterable[int]) -> tuple[int, ...]:
        """Those of `shards` that have a hole. A look at a dict each; none where nothing is damaged."""
        return tuple(s for s in shards if self._of(s) is not None) if self else ()

    def numbers(self, shards: Iterable[int], until: int) -> dict[int, int]:
        """By shard with a hole: which one, if all that is lost was received by `until`."""
        found = ((shard, self._of(shard)) for shard in shards) if self else ()
        return {s: one.number for s, one in found if one is not None and one.until <= until}

    def lacking(self, shards: Iterable[int]) -> int:
        """How many entries are known to lack of `shards`."""
        found = (self._holes.get(shard) for shard in shards)
        return sum(len(one.lacking or ()) for one in found if one is not None)

    def _of(self, shard: int) -> _Hole | None:
        own = self._holes.get(shard)
        every = None if shard in self._whole else self._everywhere
        if own is None or every is None:
            return own or every
        return _Hole(max(own.number, every.number), max(own.until, every.until))

    # -- what a restart must know

    def rows(self) -> list[HoleRow]:
        """All of it, for the catalog."""
        rows = [
            (shard, one.until, int(one.lacking is not None), b"".join(one.lacking or ()))
            for shard, one in self._holes.items()
        ]
        if self._everywhere is not None:
            whole = b"".join(n.to_bytes(_ID_BYTES, "big") for n in sorted(self._whole))
            rows.append((EVERYWHERE, self._everywhere.until, 0, whole))
        return rows

    def load(self, rows: Iterable[HoleRow]) -> None:
        """The inverse, into an empty one; nothing is dirty then."""
        for shard, until, known, packed in rows:
            ids = [packed[at : at + _ID_BYTES] for at in range(0, len(packed), _ID_BYTES)]
            if shard == EVERYWHERE:
                self.add_everywhere(until)
                self._whole = {int.from_bytes(one, "big") for one in ids}
            else:
                self.add(shard, ids if known else None, until)
        self.dirty = False
