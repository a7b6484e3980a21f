"""Clients for volume: batches of thousands of rows, columnar from end to end, beside the other clients.

bulk agent     unnumbered batches, by lot as JSON lines or as an Arrow stream; on any doubt the same bytes
               to another node, now and then a repeat without any doubt
bulk numbered  numbers its rows itself, as Arrow: repeats, batches cut differently than before, gaps
bulk reader    ranges of time of one client, as Arrow, through all nodes in turn

What goes into the history is spans of numbers, never rows: a read is compared with the corpus as it comes in
(`Sight`), and noted as what it found, doubled, altered and could not place. `bulk_checkers` judges that.
"""

import asyncio
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from chaos.bulk_corpus import FIELDS, GROUP_ROWS, BulkCorpus, arrow_stream, ndjson
from chaos.corpus import time_text
from chaos.history import BULK, BULK_FINAL, BULK_READ, OK, UNKNOWN, Range
from chaos.workload import (
    NDJSON,
    REPEAT_EVERY,
    Client,
    Traffic,
    ask_epoch,
    took_lines,
    took_numbered,
)
from quorumlog.errors import QuorumlogError
from quorumlog.wire import Wire, WireSettings

#: Rows of a batch.
BATCH_ROWS = (2_000, 10_000)
#: Seconds between the batches of one client: what a machine of two cores takes beside three nodes.
PAUSE_SECONDS = 0.15
#: Seconds between the reads of the reader, and of one window of a last read.
READ_PAUSE_SECONDS, READ_SECONDS = 0.4, 60.0
#: Groups read at once in the end: 250,000 rows.
WINDOW_GROUPS = 50
#: Rows that an answer's notes show, of those that nobody sent.
STRANGERS_MAX = 20
ARROW = "application/vnd.apache.arrow.stream"


@dataclass(slots=True)
class Bulk:
    """What the bulk clients share. `written`: the highest number sent, by client."""

    traffic: Traffic
    corpus: BulkCorpus
    written: dict[str, int] = field(default_factory=dict)

    @property
    def services(self) -> Mapping[str, str]:
        """The service of each bulk client."""
        return self.traffic.bulk_services

    def table(self, client: str, first: int, last: int) -> pa.Table:
        """The rows of a batch."""
        return self.corpus.table(client, np.arange(first, last + 1), self.services[client])


class Sight:
    """What one answer, or several that belong together, showed of one client's rows."""

    def __init__(self, bulk: Bulk, client: str) -> None:
        self._bulk, self._client = bulk, client
        self._copies = np.zeros(0, np.int32)
        self._altered: list[np.ndarray] = []
        self._strangers: list[str] = []
        self._strange = 0
        self._order = hashlib.blake2b(digest_size=8)

    def add(self, rows: pa.Table) -> None:
        """Looks at the rows of an answer, in their order. All that was sent until now may be in it."""
        more = self._bulk.written.get(self._client, 0) + 1 - len(self._copies)
        self._copies = np.pad(self._copies, (0, max(0, more)))
        ours, numbers = self._ours(rows)
        self._order.update(numbers.tobytes())
        if not ours.all():
            self._strange += int((~ours).sum())
            some = rows.filter(pa.array(~ours)).slice(0, STRANGERS_MAX).to_pylist()
            self._strangers += [str(row)[:200] for row in some]
            rows = rows.filter(pa.array(ours))
        self._copies += np.bincount(numbers, minlength=len(self._copies)).astype(np.int32)
        service = self._bulk.services[self._client]
        self._altered.append(numbers[self._bulk.corpus.altered(rows, self._client, service)])

    def _ours(self, rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """Which rows name themselves as some that were sent, and the numbers of these."""
        if not {"chaos_client", "chaos_number"} <= set(rows.column_names) or not (
            pa.types.is_integer(rows["chaos_number"].type)
        ):
            return np.zeros(len(rows), bool), np.zeros(0, np.int64)
        numbers = np.asarray(rows["chaos_number"].fill_null(0).cast(pa.int64()))
        mine = np.asarray(rows["chaos_client"].cast(pa.string()).to_numpy() == self._client)
        ours = mine & (numbers >= 1) & (numbers < len(self._copies))
        return ours, numbers[ours]

    def resp(self) -> dict[str, Any]:
        """What is noted of it."""
        altered = np.zeros(len(self._copies), bool)
        for numbers in self._altered:
            altered[numbers] = True
        found: dict[str, Any] = {"found": spans(self._copies > 0), "order": self._order.hexdigest()}
        found |= {"doubled": spans(self._copies > 1), "altered": spans(altered)}
        if self._strange:
            found["strangers"] = [self._strange, self._strangers[:STRANGERS_MAX]]
        return found


def spans(mask: np.ndarray) -> list[list[int]]:
    """The runs of true values, both ends in them."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return [[int(first), int(end) - 1] for first, end in edges.reshape(-1, 2)]


# ---- writers


async def bulk_agent(bulk: Bulk, name: str, seed: int, turn: int) -> None:
    """Writes unnumbered batches until told to stop; then until its last one is acknowledged."""
    client, first = Client(bulk.traffic, name, seed, turn), 1
    try:
        while not bulk.traffic.stopping.is_set():
            last = first + _size(client) - 1
            kind, encode = (NDJSON, ndjson) if client.lot(2) else (ARROW, arrow_stream)
            table = await asyncio.to_thread(bulk.table, name, first, last)
            body = await asyncio.to_thread(encode, table)
            bulk.written[name] = last

            async def send(
                node: str, body: bytes = body, kind: str = kind, batch: Range = (first, last)
            ) -> bool:
                op = bulk.traffic.recorder.invoke(name, BULK, node, [batch])
                key = f"{name}-{batch[0]}-{batch[1]}" if bulk.traffic.keys else ""
                reply = await client.post(op, node, "/logs", body, kind, key)
                return took_lines(client, op, reply, batch)

            if not await client.until_acked([(first, last)], send):
                return
            if client.lot(REPEAT_EVERY):
                bulk.traffic.repeats += 1
                client.turn += 1
                await send(bulk.traffic.node(client.turn))
            first = last + 1
            await bulk.traffic.clock.sleep(PAUSE_SECONDS)
    finally:
        await client.wire.close()


async def bulk_numbered(bulk: Bulk, name: str, seed: int, turn: int) -> None:
    """Writes batches numbered by itself: in order, out of order, overlapping, twice."""
    client, first = Client(bulk.traffic, name, seed, turn), 1
    try:
        epoch = await ask_epoch(client, bulk.services[name])
        while epoch and not bulk.traffic.stopping.is_set():
            last = first + _size(client) - 1
            for part in _parts(client, first, last):
                body = await asyncio.to_thread(_numbered_body, bulk, name, epoch, part)
                bulk.written[name] = max(bulk.written.get(name, 0), part[1])

                async def send(node: str, body: bytes = body, part: Range = part) -> bool:
                    op = bulk.traffic.recorder.invoke(name, BULK, node, [part])
                    reply = await client.post(op, node, "/ingest", body, ARROW)
                    return took_numbered(client, op, reply, part, epoch)

                if not await client.until_acked([part], send):
                    return
            first = last + 1
            await bulk.traffic.clock.sleep(PAUSE_SECONDS)
    finally:
        await client.wire.close()


def _size(client: Client) -> int:
    low, high = BATCH_ROWS
    return int(client.entropy.uniform(low, high))


def _parts(client: Client, first: int, last: int) -> list[Range]:
    """How a batch is sent: whole, twice, in two parts in the wrong order, or with rows of the one before."""
    if client.lot(8):
        middle = (first + last) // 2
        return [(middle + 1, last), (first, middle)]
    if first > 1_000 and client.lot(8):
        return [(first - 777, last)]
    if client.lot(REPEAT_EVERY):
        client.traffic.repeats += 1
        return [(first, last), (first, last)]
    return [(first, last)]


def _numbered_body(bulk: Bulk, name: str, epoch: int, part: Range) -> bytes:
    envelope = {"service": bulk.services[name], "producer": name, "epoch": epoch}
    rows = bulk.table(name, *part).drop_columns(["service"])
    rows = rows.append_column("seq", rows["chaos_number"])
    return arrow_stream(rows.replace_schema_metadata({"quorumlog": json.dumps(envelope)}))


# ---- readers


async def bulk_reader(bulk: Bulk, name: str, seed: int, turn: int) -> None:
    """Reads some groups of some client through all nodes in turn until told to stop."""
    client = Client(bulk.traffic, name, seed, turn)
    try:
        while not bulk.traffic.stopping.is_set():
            client.turn += 1
            written = sorted(bulk.written.items())
            if written:
                whom, top = written[int(client.entropy.uniform(0, len(written))) % len(written)]
                group = int(client.entropy.uniform(0, top - 1)) // GROUP_ROWS
                await _read(bulk, client, bulk.traffic.node(client.turn), whom, group)
            await bulk.traffic.clock.sleep(READ_PAUSE_SECONDS)
    finally:
        await client.wire.close()


async def _read(bulk: Bulk, client: Client, node: str, whom: str, group: int) -> None:
    first = group * GROUP_ROWS + 1
    span = (first, first + GROUP_ROWS - 1)
    op = bulk.traffic.recorder.invoke(client.name, BULK_READ, node, [span], whom)
    resp = await _look(bulk, client.wire, op, node, whom, [_window(bulk, group, group + 1)])
    if resp is not None:
        bulk.traffic.recorder.returned(op, OK, resp)


async def bulk_final_reads(bulk: Bulk, tries: int = 5) -> None:
    """Reads all rows of each client through each node; again, if an answer was not complete."""
    wire = Wire(WireSettings(request_timeout_seconds=READ_SECONDS))
    try:
        for node in bulk.traffic.urls:
            for whom in sorted(bulk.written):
                for _ in range(tries):
                    if await _final(bulk, wire, node, whom):
                        break
                    await bulk.traffic.clock.sleep(1.0)
    finally:
        await wire.close()


async def _final(bulk: Bulk, wire: Wire, node: str, whom: str) -> bool:
    top = bulk.written[whom]
    op = bulk.traffic.recorder.invoke("final", BULK_FINAL, node, [(1, top)], whom)
    cuts = [*range(WINDOW_GROUPS, (top - 1) // GROUP_ROWS + 1, WINDOW_GROUPS)]
    bounds = zip([None, *cuts], [*cuts, None], strict=True)  # the outermost have no end
    resp = await _look(bulk, wire, op, node, whom, [_window(bulk, *pair) for pair in bounds])
    if resp is None:
        return False
    bulk.traffic.recorder.returned(op, OK, resp)
    return resp["complete"]


def _window(bulk: Bulk, low: int | None, high: int | None) -> dict[str, str]:
    """Parameters for the times of the groups from `low` to before `high`."""
    found = {}
    for name, group in (("from", low), ("to", high)):
        if group is not None:
            number = np.array([group * GROUP_ROWS + 1])
            found[name] = time_text(int(bulk.corpus.time_of(number)[0]))
    return found


async def _look(
    bulk: Bulk, wire: Wire, op: int, node: str, whom: str, windows: Iterable[dict[str, str]]
) -> dict[str, Any] | None:
    """What was in the answers; None (and an unknown outcome) if one did not come to its end."""
    sight, complete, missing = Sight(bulk, whom), True, []
    url, headers = bulk.traffic.urls[node] + "/query", {"Accept": ARROW}
    asked = {"service": bulk.services[whom], "chaos_client": whom, "fields": ",".join(FIELDS)}
    for window in windows:
        try:
            reply = await wire.request("GET", url, params=asked | window, headers=headers)
            if reply.status != 200:
                text = reply.body[-300:].decode("utf-8", "replace")
                bulk.traffic.recorder.returned(op, UNKNOWN, {"status": reply.status, "error": text})
                return None
            await asyncio.to_thread(_add, sight, reply.body)
        except (QuorumlogError, pa.ArrowInvalid, OSError) as error:
            bulk.traffic.recorder.returned(op, UNKNOWN, {"error": str(error)[:200]})
            return None
        complete &= reply.headers.get("X-Quorumlog-Complete") == "true"
        missing += [one] if (one := reply.headers.get("X-Quorumlog-Missing", "")) else []
    return {"complete": complete, "missing": missing, **sight.resp()}


def _add(sight: Sight, body: bytes) -> None:
    for batch in pa.ipc.open_stream(body):
        sight.add(pa.Table.from_batches([batch]))
