"""The shop's rows through producers, one a service: numbered, buffered on disk, sent again when asked for.

The same folder may be used again: what had no ack is sent first, and replay requests for rows of an
earlier run are answered as far as the buffers still have them.
"""

import argparse
import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from node.cli_api import DEFAULT_SERVERS
from node.cli_errors import OK, CliError
from node.render import note, print_json
from node.simulate.feed import batches
from node.simulate.formats import LINES, to_bytes
from node.simulate.pieces import tables
from quorumlog import BufferFull, Producer

#: Seconds between two questions of an idle producer whether rows are asked for again.
POLL_SECONDS = 5.0
#: Seconds for the last acks.
FLUSH_SECONDS = 60.0


async def produce(options: argparse.Namespace, make: dict[str, Any], live: bool) -> int:
    """Sends the rows that `make` describes; returns when all are acknowledged, and `--hold` is over."""
    folder = Path(options.buffers)
    try:
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    except OSError as error:
        raise CliError(f"cannot make {folder}: {error.strerror}") from error
    servers = list(options.server) or list(DEFAULT_SERVERS)
    producers: dict[str, Producer] = {}
    rows, started = 0, time.monotonic()
    async with contextlib.AsyncExitStack() as stack:
        pieces = batches(tables(**make), live)
        while (table := await asyncio.to_thread(next, pieces, None)) is not None:
            for service, row in _rows(table):
                if service not in producers:
                    made = Producer(
                        servers,
                        service,
                        folder / f"{service}.wal",
                        tenant=options.tenant,
                        replay_poll_seconds=POLL_SECONDS,
                    )
                    producers[service] = await stack.enter_async_context(made)
                await _send(producers[service], row)
                rows += 1
        await asyncio.gather(*(one.flush(FLUSH_SECONDS) for one in producers.values()))
        seconds = time.monotonic() - started
        if options.hold:
            note(f"{rows:,} rows acknowledged; answering replay requests for {options.hold:g} s")
            await asyncio.sleep(options.hold)
    replayed = sum(one.stats.rows_replayed for one in producers.values())
    body = {"rows": rows, "producers": len(producers), "replayed": replayed}
    if options.json:
        print_json({**body, "seed": make["seed"], "seconds": round(seconds, 3)})
    else:
        note(
            f"{rows:,} rows stored in {seconds:.1f} s (seed {make['seed']}), {replayed:,} sent again"
        )
    return OK


def _rows(table: pa.Table) -> Iterator[tuple[str, dict[str, Any]]]:
    for line in to_bytes(LINES["json"](table)).splitlines():
        row = json.loads(line)
        yield row.pop("service"), row


async def _send(producer: Producer, row: dict[str, Any]) -> None:
    while True:
        try:
            producer.send(**row)
        except BufferFull:
            await producer.flush(FLUSH_SECONDS)
        else:
            return
