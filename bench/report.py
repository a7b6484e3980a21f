"""Results as tables for people."""

from typing import Any

from bench.goals import CPU_GOAL, DISK_GOAL, SPEED_GOAL, overcounted
from bench.measure import table


def goals(found: dict[str, Any]) -> str:
    """The table of goals: a line for each figure, a column for each store."""
    stores = list(found["stores"])
    lines: list[tuple[Any, ...]] = []
    for kind, part in found["corpora"].items():
        ingest, disk = part["ingest"], part["disk_bytes_per_row"]
        costs = [_median(ingest[name]["cpu_micros_per_row"]) for name in stores]
        speeds = [_median(ingest[name]["acked_rows_per_second"]) for name in stores]
        lines.append((f"ingest, server CPU us/row, {kind}", f"{CPU_GOAL[kind]:g}", *costs))
        lines.append(
            (f"rows/s acked, driver on the same cores, {kind}", f"{SPEED_GOAL[kind]:,}", *speeds)
        )
        sizes = [_or_dash(disk[name]) for name in stores]
        lines.append((f"disk bytes/row, one copy, {kind}", f"{DISK_GOAL[kind]}", *sizes))
    for kind, part in found["corpora"].items():
        for one in part["questions"]:
            name = f"{one['question']}, p50 ms ({kind}, {part['rows']:,} rows)"
            times = [_time(one, store) for store in stores]
            lines.append((name, f"{one['goal_ms']:g}", *times))
    text = table("goals", ("", "goal at full size", *stores), lines)
    text += "\n" + "\n".join(f"{name}: {note}" for name, note in found["stores"].items())
    text += "\n\n" + _cpu(found, stores) + "\n\n" + _first(found, stores) + "\n"
    for name, sizes in found["peak_memory_bytes"].items():
        if sizes:
            text += f"\npeak memory, {name}: {mebibytes(sizes)} MiB"
    for name in overcounted(found):
        text += f"\nWRONG: {name} counted more rows than it was sent, for a moment; see the JSON"
    if "loss" in found:
        loss = found["loss"]
        text += (
            f"\nkill -9 of all nodes right after the last ack: {loss['lost_rows']:,} of"
            f" {loss['acked_rows']:,} acked rows lost"
        )
    return text


def _cpu(found: dict[str, Any], stores: list[str]) -> str:
    """What a question costs: less moved by other work on the machine than the time it takes."""
    lines = [
        (one["question"], *(_or_dash(one["ms"].get(store, {}).get("cpu")) for store in stores))
        for part in found["corpora"].values()
        for one in part["questions"]
    ]
    return table("server CPU of a question, mean ms", ("", *stores), lines)


def _first(found: dict[str, Any], stores: list[str]) -> str:
    """What nobody remembers yet: text and columns that were not read before."""
    lines = [
        (one["question"], *(_or_dash(one["ms"].get(store, {}).get("first")) for store in stores))
        for part in found["corpora"].values()
        for one in part["questions"]
    ]
    return table("asked the first time, ms, once", ("", *stores), lines)


def mebibytes(sizes: list[int]) -> str:
    """Bytes of some processes in short."""
    return " + ".join(f"{one / (1 << 20):.0f}" for one in sizes)


def _median(spread: dict[str, float] | None) -> Any:
    return "-" if spread is None else float(spread["median"])


def _or_dash(value: float | None) -> Any:
    return "-" if value is None else float(value)


def _time(question: dict[str, Any], store: str) -> Any:
    if store in question["differs"]:
        return "differs"
    taken = question["ms"].get(store)
    return "-" if taken is None else float(taken["p50"])
