"""The ways that an unnumbered request may go when services of it are split. Pure.

A *way* names the shard of each service whose rows do not go to its home shard. The way of today follows from
the newest generations and the request's content; a copy that came before a split went another way, so for
two windows after it the earlier ways are looked at too. Requests with a key of the client's choice never
age, so they stay at home for ever: their way is empty. So do raw rows that could not be parsed (`_failed`).

Entries of different ways never have the same name (`ingestor.shards`), even in a shard that both use: they
may hold different rows.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa

from ingestor.shards import codes_and_names
from records.visibility import REPEAT_MICROS
from ring.generations import Generation, begun_before
from ring.shards import shard_of

#: Service -> shard, of the services whose rows do not go to their home shard.
Way = Mapping[str, int]
HOME: Way = {}

#: Later than any split.
_NOW = 1 << 63


class Splits(Protocol):
    """What ways need of a ClusterView."""

    @property
    def shard_count(self) -> int: ...

    def generations(self, tenant: str, service: str) -> tuple[Generation, ...]: ...


def services_of(table: pa.Table) -> list[str]:
    """The services that rows of `table` have."""
    codes, names = codes_and_names(table["service"])
    return [names[code] for code in np.flatnonzero(np.bincount(codes, minlength=len(names)))]


def ways_of(
    view: Splits, tenant: str, services: Sequence[str], content: bytes, now: int
) -> list[Way]:
    """Today's way first, then, the latest first, those that a copy of the request may have gone.

    `content`: what the rows are spread by; `now`: when the request was received, microseconds.
    """
    splits = {
        service: generations
        for service in services
        if len(generations := view.generations(tenant, service)) > 1
    }
    began = {one.at_micros for generations in splits.values() for one in generations[1:]}
    recent = sorted((at for at in began if at > now - 2 * REPEAT_MICROS), reverse=True)
    ways: list[Way] = []
    for moment in (_NOW, *recent):
        way: dict[str, int] = {}
        for service, generations in splits.items():
            factor = generations[begun_before(generations, moment)].factor
            home = shard_of(tenant, service, shard_count=view.shard_count)
            shard = shard_of(tenant, service, factor, content.hex(), view.shard_count)
            if shard != home:
                way[service] = int(shard)
        if way not in ways:
            ways.append(way)
    return ways
