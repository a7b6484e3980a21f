"""Reading the arguments of a command: each is checked for type and bounds before it is used. Pure.

A bad argument is a `CommandError`, which becomes an error value that every node computes alike.
"""

from collections.abc import Mapping
from typing import Any

from cluster.state_types import CommandError

Args = Mapping[str, Any]

NAME_CHARS_MAX = 256
NEVER = 1 << 63


def text(args: Args, key: str, *, empty: bool = False) -> str:
    """A text of at most NAME_CHARS_MAX letters."""
    value = args.get(key, "" if empty else None)
    if not isinstance(value, str) or len(value) > NAME_CHARS_MAX or not (value or empty):
        raise CommandError("INVALID", f"{key} must be a text of at most {NAME_CHARS_MAX} letters")
    return value


def count(args: Args, key: str, low: int = 0, high: int = NEVER - 1) -> int:
    """A whole number in low..high."""
    value = args.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise CommandError("INVALID", f"{key} must be a whole number in {low}..{high}")
    return value


def expect(what: str, expected: int, actual: int) -> None:
    """The compare of a compare-and-set."""
    if expected != actual:
        raise CommandError("MISMATCH", f"expected {what} {expected}, it is {actual}")


def is_shard(shard: Any, shard_count: int) -> bool:
    """Whether it names a shard."""
    return isinstance(shard, int) and not isinstance(shard, bool) and 0 <= shard < shard_count


def shards(args: Args, key: str, shard_count: int) -> frozenset[int]:
    """A list of distinct shards; empty if absent."""
    rows = args.get(key, [])
    if not isinstance(rows, list) or not all(is_shard(s, shard_count) for s in rows):
        raise CommandError("INVALID", f"{key} must be a list of shards")
    if len(set(rows)) != len(rows):
        raise CommandError("INVALID", f"{key} names a shard twice; one replica moves at a time")
    return frozenset(rows)
