"""Load that a checker can regenerate: agents that resend until they are answered, and what was acked.

Each row's message names its agent, batch and row, so that what was acknowledged can be compared with
what is read, row by row, and a double shows as well as a loss.
"""

import asyncio
import json
import time
from dataclasses import dataclass, field

import aiohttp

ROWS_PER_BATCH = 50
#: Seconds a client waits for one answer: longer than a node holds a request.
ANSWER_SECONDS = 15.0


@dataclass(slots=True)
class Ledger:
    """What happened: acked and attempted row names, refusals by living nodes, and how long acks took."""

    acked: set[str] = field(default_factory=set)
    attempted: set[str] = field(default_factory=set)
    refused: list[tuple[int, str]] = field(default_factory=list)
    ack_seconds: list[float] = field(default_factory=list)
    resends: int = 0

    def longest_ack(self) -> float:
        """The longest time from the first send of a batch to its ack, through all resends."""
        return max(self.ack_seconds, default=0.0)


def batch_rows(agent: int, batch: int) -> list[str]:
    """The names of a batch's rows."""
    return [f"agent{agent} batch{batch} row{row}" for row in range(ROWS_PER_BATCH)]


def batch_body(names: list[str], services: int = 5) -> bytes:
    """NDJSON of the rows, over several services, so that many shards are hit."""
    lines = [
        json.dumps({"service": f"svc{i % services}", "level": "info", "message": name})
        for i, name in enumerate(names)
    ]
    return ("\n".join(lines) + "\n").encode()


async def agent(number: int, urls: list[str], over: asyncio.Event, ledger: Ledger) -> None:
    """One agent: sends batch after batch until it is `over`; on any doubt the same bytes to the next node."""
    turn, batch = number, 0
    async with aiohttp.ClientSession() as session:
        while not over.is_set():
            names = batch_rows(number, batch)
            body = batch_body(names)
            ledger.attempted.update(names)
            started = time.monotonic()
            while True:
                if await _send(session, urls[turn % len(urls)], body, ledger):
                    break
                ledger.resends += 1
                turn += 1
                if time.monotonic() - started > 60:
                    return  # never acked: the test sees what is missing
            ledger.ack_seconds.append(time.monotonic() - started)
            ledger.acked.update(names)
            batch += 1


async def _send(session: aiohttp.ClientSession, url: str, body: bytes, ledger: Ledger) -> bool:
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS, sock_connect=1)
    headers = {"Content-Type": "application/x-ndjson"}
    try:
        async with session.post(
            f"{url}/logs", data=body, headers=headers, timeout=timeout
        ) as answer:
            text = await answer.text()
            if answer.status == 200:
                return True
            ledger.refused.append((answer.status, text[:300]))
    except (aiohttp.ClientError, TimeoutError, OSError):
        await asyncio.sleep(0.02)
    return False


async def read_messages(url: str, path: str = "/query?format=ndjson&fields=message") -> list[str]:
    """Every row's message, by a stream without a cap."""
    headers = {"Accept": "application/x-ndjson"}
    timeout = aiohttp.ClientTimeout(total=120)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(f"{url}{path}", headers=headers) as answer,
    ):
        assert answer.status == 200, await answer.text()
        return [json.loads(line)["message"] async for line in answer.content if line.strip()]


def check_nothing_lost_or_doubled(ledger: Ledger, read: list[str]) -> None:
    """Acked is a subset of read, read a subset of attempted, and nothing is there twice."""
    found = set(read)
    lost = ledger.acked - found
    assert not lost, f"{len(lost)} of {len(ledger.acked)} acked rows are lost: {sorted(lost)[:5]}"
    assert len(read) == len(found), f"{len(read) - len(found)} rows are doubled"
    invented = found - ledger.attempted
    assert not invented, f"rows from nowhere: {sorted(invented)[:5]}"
