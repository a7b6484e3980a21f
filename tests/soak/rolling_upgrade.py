"""Starts three nodes of an older build, and restarts them one by one with this one, under load.

    git archive COMMIT | tar -x -C /tmp/older
    python -m tests.soak.rolling_upgrade --old /tmp/older

Agents send, a reader asks, a command goes to the Raft group each second through each node in turn: so old and
new nodes forward to, store for and read from one another while one, then two of three are new. In the end
every row that was sent is acknowledged, and read once through each node. `--back` has the first one go back
to the older build before the others follow. Exit code 1 if a row is lost or doubled, a node was never
ready again, or one logged an error.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.soak.quiet_leader import SERVICE, Run, judge
from tests.support.cluster import LocalCluster
from tests.support.load import read_messages

STEP_SECONDS = 8.0


async def _restart(cluster: LocalCluster, node: str, within: list[str]) -> None:
    """In order, with another build; returns some seconds after it is ready."""
    await asyncio.to_thread(cluster.stop_some, node)
    cluster.within[node] = within
    await asyncio.to_thread(cluster.start_one, node)
    await asyncio.sleep(STEP_SECONDS)


async def _story(cluster: LocalCluster, older: list[str], back: bool) -> None:
    await asyncio.sleep(STEP_SECONDS)
    for turn, node in enumerate(cluster.ids):
        await _restart(cluster, node, [])
        if back and turn == 0:
            await _restart(cluster, node, older)
            await _restart(cluster, node, [])


def run(folder: Path, old: Path, back: bool = False, rows_per_second: int = 2_000) -> Any:
    """One upgrade in `folder`; `wrong` is empty if all is well."""
    older = ["env", f"PYTHONPATH={old}:{old / 'client'}"]
    cluster = LocalCluster(folder / "cluster", 3)
    cluster.within = dict.fromkeys(cluster.ids, older)
    try:
        cluster.start()
        done = Run(cluster, rows_per_second)
        asyncio.run(done.go(_story(cluster, older, back)))
        wrong = judge(cluster, done.acked)
        for url in cluster.urls:
            path = f"/query?service={SERVICE}&format=ndjson&fields=message"
            messages = asyncio.run(read_messages(url, path))
            if not len(messages) == len(set(messages)) == done.acked:
                wrong.append(f"{url}: {len(messages)} rows, {len(set(messages))} distinct")
        wrong += [json.dumps(one) for one in cluster.errors_logged()]
        cluster.stop()
    finally:
        cluster.destroy()
    return {"rows": done.acked, "commands": done.commands, "wrong": wrong}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--old", type=Path, required=True, help="an older build's tree")
    parser.add_argument("--back", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = run(Path(folder), options.old.resolve(), options.back)
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    return 1 if report["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
