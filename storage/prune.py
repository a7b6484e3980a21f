"""From a filter to a probe: which row groups cannot hold a match, by what their filters say. Pure.

A probe answers "maybe" or "no" for each row group and is never wrong with a "no". Conditions that no filter
knows anything of are "maybe", and so is every negation.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from records.columns import CORE_TYPES
from records.predicates import Filter
from records.token_filter import hash_key, words_inside, words_of

#: Keys of one `in` that are looked up; with more, nearly every row group may hold one.
IN_MAX = 64
#: Columns that the rollup and the sidecar's dictionaries decide about.
_ELSEWHERE = frozenset({"service", "level"})


class Groups(Protocol):
    """Row groups of many blocks, each answered for at once."""

    groups: int

    def may_hold(self, name: str, hashes: Sequence[int], every: bool) -> np.ndarray:
        """Which row groups may hold all (`every`) or any of the keys in a column."""
        ...

    def may_have(self, name: str, attributes: bool) -> np.ndarray:
        """Which row groups may have a value of a column, there or in `attributes`."""
        ...


Probe = Callable[[Groups], np.ndarray]


def probe_of(tree: Filter) -> Probe | None:
    """The probe of a filter; None if filters cannot help."""
    kind, *operands = tree
    if kind == "and":
        return _all([one for one in map(probe_of, operands) if one is not None])
    if kind == "or":
        parts = [probe_of(one) for one in operands]
        found = [one for one in parts if one is not None]
        return _any(found) if found and len(found) == len(parts) else None
    if kind in ("true", "not"):
        return None
    return _leaf(kind, operands)


def _all(probes: list[Probe]) -> Probe | None:
    if len(probes) < 2:
        return probes[0] if probes else None
    return lambda groups: np.logical_and.reduce([probe(groups) for probe in probes])


def _any(probes: list[Probe]) -> Probe:
    return lambda groups: np.logical_or.reduce([probe(groups) for probe in probes])


def _leaf(kind: str, operands: list) -> Probe | None:
    name = "message" if kind in ("word", "phrase") else str(operands[0])
    if name in _ELSEWHERE or (kind == "eq" and operands[1] is None):
        return None
    parts: list[Probe | None] = [_has(name)]
    if kind == "word":
        parts.append(_holds("message", words_of(str(operands[0])), True))
    elif kind == "phrase":
        parts.append(_holds("message", words_inside(str(operands[0])), True))
    elif kind in ("eq", "in"):
        parts.append(_equals(name, [operands[1]] if kind == "eq" else list(operands[1])))
    return _all([one for one in parts if one is not None])


def _has(name: str) -> Probe:
    """Any condition holds only where the row has the field."""
    return lambda groups: groups.may_have(name, name not in CORE_TYPES)


def _equals(name: str, values: list) -> Probe | None:
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) != len(values) or len(texts) > IN_MAX:
        return None  # a number equals text that reads as it, in more than one way
    if name == "message":
        probes = [_holds(name, words_of(text), True) for text in texts]
        found = [one for one in probes if one is not None]
        return _any(found) if found and len(found) == len(probes) else None
    return _holds(name, [text.encode("utf-8", "surrogatepass") for text in texts], False)


def _holds(name: str, keys: list[bytes], every: bool) -> Probe | None:
    if not keys:
        return None
    hashes = [hash_key(key) for key in keys]
    return lambda groups: groups.may_hold(name, hashes, every)
