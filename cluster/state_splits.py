"""SplitService: the next generation of a hot service, over more shards than before. Pure.

It raises the ring epoch by one, though no shard moves: storage nodes then refuse whoever places rows by the
older state, and tell whoever reads by it that there is a newer one (docs/adr/0029).
"""

from dataclasses import replace
from typing import Any

from cluster.state_args import Args, count, expect, text
from cluster.state_types import ClusterState, CommandError
from ring.generations import MAX_GENERATIONS, UNSPLIT, Generation, highest_factor

#: Services that may be split; each costs some ten bytes of state for each generation.
SPLITS_MAX = 1024


def split_service(state: ClusterState, args: Args) -> tuple[ClusterState, Any]:
    """Spreads new epochs of a service's producers, and its unnumbered rows, over `factor` shards.

    `at`: the proposer's clock, microseconds. Kept ascending over all services, so that one order of what
    began when is that of the log. The value is the number of the new generation.
    """
    key = (text(args, "tenant"), text(args, "service"))
    factor, at = count(args, "factor", 2, state.shard_count), count(args, "at")
    known = state.splits.get(key, UNSPLIT)
    expect("generation", count(args, "expected_generation"), len(known) - 1)
    if factor <= highest_factor(known):
        raise CommandError("INVALID", f"the factor is {highest_factor(known)} and only grows")
    if len(known) >= MAX_GENERATIONS:
        raise CommandError("FULL", f"a service has at most {MAX_GENERATIONS} generations")
    if key not in state.splits and len(state.splits) >= SPLITS_MAX:
        raise CommandError("FULL", f"at most {SPLITS_MAX} services are split")
    newest = max((one[-1].at_micros for one in state.splits.values()), default=0)
    generations = (*known, Generation(factor, max(at, newest + 1)))
    changed = replace(state, splits={**state.splits, key: generations})
    if state.ring is not None:
        epoch = state.ring_epoch + 1
        changed = replace(changed, ring={**state.ring, "epoch": epoch}, ring_epoch=epoch)
    return changed, len(known)
