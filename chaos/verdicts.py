"""A verdict: what became of one invariant, in words. Pure."""

from dataclasses import dataclass

HOLDS, VIOLATED, UNSEEN = "holds", "violated", "not seen"
#: Violations that a verdict spells out.
EXAMPLES_MAX = 5


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one invariant. `count` violations, of which some are named in `examples`."""

    id: str
    name: str
    status: str
    text: str
    count: int = 0
    examples: tuple[str, ...] = ()


def verdict(
    id: str, name: str, bad: list[str], if_bad: str, evidence: int, if_good: str, if_none: str
) -> Verdict:
    """The verdict of one checker: `bad` names violations, `evidence` counts what was looked at."""
    if bad:
        return Verdict(id, name, VIOLATED, if_bad, len(bad), tuple(bad[:EXAMPLES_MAX]))
    if not evidence:
        return Verdict(id, name, UNSEEN, if_none)
    return Verdict(id, name, HOLDS, if_good)


def merged(one: Verdict, more: Verdict) -> Verdict:
    """What became of an invariant that was looked at in two ways."""
    if more.status == UNSEEN or (one.status == VIOLATED != more.status):
        return one
    if one.status == UNSEEN or (more.status == VIOLATED != one.status):
        return more
    if one.status == HOLDS:
        return Verdict(one.id, one.name, HOLDS, f"{one.text}; {more.text}")
    examples = (*one.examples, *more.examples)[:EXAMPLES_MAX]
    return Verdict(one.id, one.name, VIOLATED, one.text, one.count + more.count, examples)
