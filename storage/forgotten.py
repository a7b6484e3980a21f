"""Which sequences of a producer were here and are below a watermark: as good as acknowledged. Pure.

Their rows are hidden for good, on all owners; nobody copies them to an owner that lacks them. So an owner
that had them speaks for all: a leader that counted copies of them would wait for ever.
"""

from dataclasses import replace

from records.block import ProducerKey, Spans
from records.intervals import SeqIntervals
from records.messages import ProducerState, ProducerStates
from records.timestamps import MIN_MICROS
from storage.holdings import Holdings
from storage.producers import GroupKey


def states_of(holdings: Holdings, shard: int, producer: ProducerKey) -> ProducerStates:
    """Every known epoch of a producer, ascending; `gone` where a watermark passed rows above `told`.

    Nothing is said to be gone while the shard has a hole: what lacks then may be damaged, not dropped.
    """
    states = holdings.producers.states(shard, producer)
    if holdings.holes.within((shard,)):
        return ProducerStates(tuple(states), hole=True)
    tenant, service, _ = producer
    if holdings.retention.mark(tenant, service) > MIN_MICROS:
        gone = (_gone(holdings, (shard, *one.producer), one) for one in states)
        states = [replace(one, gone=lost) for one, lost in zip(states, gone, strict=True)]
    return ProducerStates(tuple(states))


def _gone(holdings: Holdings, key: GroupKey, state: ProducerState) -> Spans:
    """Sequences above `told` without a row that anybody may still need. One pass over columns."""
    held, number = holdings.producers.held.get(key), holdings.table.producers.find(key)
    if held is None or held.rows.largest <= state.told:
        return ()
    first, last = state.told + 1, held.rows.largest
    needed = SeqIntervals()
    rows, (_, tenant, service, _, _) = holdings.table.rows, key
    found = [] if number is None else holdings.table.producer_entries(number, first, last)
    for one in found:
        if not holdings.retention.expired(tenant, service, int(rows[one]["max_ts"])):
            needed.update(holdings.spans(one)[0])
    above = held.rows.overlap(first, last)
    return tuple(gap for a, b in above for gap in needed.gaps(a, b))
