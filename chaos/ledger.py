"""Sums over ledgers: how many runs counted, how many faults bit, how many rows were acked, lost, doubled."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from node.cli_errors import CliError

HEADS = ("scenario", "runs", "failed", "faults", "rows acked", "resent", "lost", "doubled")
_COUNTED = ("faults_bitten", "rows_acked", "resends", "rows_lost", "rows_doubled")


def sums(files: Iterable[Path]) -> dict[str, Any]:
    """By scenario and in all: runs that count, those that failed, and what they add up to.

    Raises:
        CliError: a file that cannot be read, or a line that is none of a ledger (but a torn last one is).
    """
    by: dict[str, Counter[str]] = {}
    for path in files:
        for line in _lines(path):
            one = by.setdefault(str(line["scenario"]), Counter())
            if not line["counts"] and not line["violated"]:
                one["not_counted"] += 1
                continue
            one["runs"] += 1
            one["failed"] += line["verdict"] != "passed"
            for name in _COUNTED:
                one[name] += int(line[name])
    total: Counter[str] = Counter()
    for one in by.values():
        total.update(one)
    names = ("runs", "failed", "not_counted", *_COUNTED)
    rows = {key: {name: one[name] for name in names} for key, one in sorted(by.items())}
    return {"scenarios": rows, "all": {name: total[name] for name in names}}


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CliError(f"{path}: {error.strerror}", "run some scenarios first") from error
    for number, line in enumerate(text.rpartition("\n")[0].split("\n"), 1):
        if not line:
            continue
        try:
            value = json.loads(line)
            needed = [
                value[name] for name in ("scenario", "counts", "violated", "verdict", *_COUNTED)
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise CliError(f"{path}, line {number}, is no line of a ledger: {error!r}") from error
        if needed:
            yield value


def rows(found: dict[str, Any]) -> list[list[str]]:
    """The sums as a table; the last row is all of it."""
    named = [*found["scenarios"].items(), ("all", found["all"])]
    return [
        [name, *(f"{one[key]:,}" for key in ("runs", "failed", *_COUNTED))] for name, one in named
    ]


def verdict(found: dict[str, Any]) -> str:
    """What the sums show, and how little they can: the rule of three."""
    total = found["all"]
    if not total["runs"]:
        return "no run counts"
    text = f"{total['runs']} runs count, {total['not_counted']} others proved nothing"
    if total["failed"]:
        return f"{text}; {total['failed']} failed"
    bound = 300 / total["runs"]
    return f"{text}; none failed: at 95 % fewer than {bound:.1f} in 100 runs would"
