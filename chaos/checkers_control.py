"""I10, one control history: what nodes told of it, what managers' disks hold, who led. Pure.

The log of the manager that has most is the history; up to what each of the others had applied theirs must be
the same, and each hash that a node ever told must stand in it. As a hash covers all commands before it, equal
hashes at an index are equal histories; a command that a node applied and that no disk holds was lost.
"""

from collections.abc import Iterable, Iterator

from chaos.evidence import Lead, Look, ManagerLog
from chaos.facts import Facts
from chaos.verdicts import Verdict, verdict


def one_history(facts: Facts) -> Verdict:
    """I10: one history of commands, one ring per ring epoch, one leader per term; epochs rise by one."""
    history = facts.history
    logs, looks = history.logs, history.looks
    bad = [*_leaders(history.leads)]
    if logs:
        main = max(logs, key=lambda log: log.steps[-1].index if log.steps else 0)
        bad += [
            *_logs_differ(main, logs, looks), *_told_otherwise(main, looks), *_epochs(main),
        ]  # fmt: skip
        bad += _silent(facts)
    bad += _rings(looks)
    longest = max((len(log.steps) for log in logs), default=0)
    return verdict(
        "I10", "one control history", bad, "managers do not agree on what was decided",
        len(looks) if longest else 0,
        f"{len(looks):,} looks at nodes and the disks of {len(logs)} managers tell one history of"
        f" {longest:,} commands, {len({one.ring_epoch for one in looks})} ring epochs, and one leader in each"
        f" of {len({one.term for one in history.leads})} terms",
        "no node told how far it is, or no manager's disk was read",
    )  # fmt: skip


def _leaders(leads: Iterable[Lead]) -> Iterator[str]:
    known: dict[int, str] = {}
    for one in leads:
        if known.setdefault(one.term, one.node) != one.node:
            yield f"term {one.term} was led by {known[one.term]} and by {one.node}"


def _logs_differ(
    main: ManagerLog, logs: Iterable[ManagerLog], looks: Iterable[Look]
) -> Iterator[str]:
    """Other commands below what a manager had applied; above it, its log may have a tail that nobody took."""
    applied: dict[str, int] = {}
    for look in looks:
        applied[look.node] = max(look.index, applied.get(look.node, 0))
    known = {step.index: step for step in main.steps}
    for log in logs:
        for step in log.steps:
            if step.index > applied.get(log.node, 0) or step.index < main.first:
                continue
            if known.get(step.index) != step:
                yield f"{log.node} has another command {step.index} than {main.node}"
                break


def _told_otherwise(main: ManagerLog, looks: Iterable[Look]) -> Iterator[str]:
    known = {step.index: step for step in main.steps}
    last = main.steps[-1].index if main.steps else 0
    for look in looks:
        if look.index < main.first:
            continue  # before the first command, or compacted away
        step = known.get(look.index)
        if step is None:
            where = f"the log ends at {last}" if look.index > last else "no log has such a command"
            yield f"{look.node} had applied command {look.index}; {where}"
        elif step.history != look.history:
            yield f"{look.node} told another history at command {look.index}"
        elif (step.ring_epoch, step.ring_hash) != (look.ring_epoch, look.ring_hash):
            yield f"{look.node} told another ring {look.ring_epoch} at command {look.index}"


def _rings(looks: Iterable[Look]) -> Iterator[str]:
    known: dict[int, Look] = {}
    for look in looks:
        first = known.setdefault(look.ring_epoch, look)
        if first.ring_hash != look.ring_hash:
            yield f"{first.node} and {look.node} told different rings of epoch {look.ring_epoch}"


def _epochs(main: ManagerLog) -> Iterator[str]:
    """Ring and shard epochs rise by one; each shard epoch has one leader."""
    for before, after in zip(main.steps, main.steps[1:], strict=False):
        if after.ring_epoch not in (before.ring_epoch, before.ring_epoch + 1):
            yield f"ring epoch {before.ring_epoch} became {after.ring_epoch} by command {after.index}"
        if after.ring_epoch == before.ring_epoch and after.ring_hash != before.ring_hash:
            yield f"two rings of epoch {after.ring_epoch}, the other one by command {after.index}"
    epochs: dict[int, int] = {}
    for index, shard, epoch, node in main.assigned:
        if shard in epochs and epoch != epochs[shard] + 1:
            yield f"shard {shard}: epoch {epochs[shard]} became {epoch}, of {node}, by command {index}"
        epochs[shard] = epoch


def _silent(facts: Facts) -> Iterator[str]:
    """Every manager tells how far it is once all is healed."""
    healed = max((fault.t_heal for fault in facts.history.faults), default=0)
    told = {look.node for look in facts.history.looks if look.t >= healed}
    for node in facts.history.head.nodes:
        if node not in told:
            yield f"{node} does not tell how far it is after the last heal"


CHECKERS = (one_history,)
