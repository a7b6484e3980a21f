"""Sends the pieces of a source: several at once, each until it is acknowledged, in any order.

A piece carries an Idempotency-Key made of the file, the offset and the bytes, so that sending it again
(after a lost answer, a crash of ours, by another run) stores nothing twice. `Progress.done` is the
offset below which every piece is acknowledged: the only thing that a resumed run relies on.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from node.cli_api import Api
from node.cli_errors import CliError
from node.send_state import key_of
from quorumlog.answers import error_from
from quorumlog.backoff import is_transient
from quorumlog.errors import QuorumlogError, TooLarge
from quorumlog.wire import Reply

if TYPE_CHECKING:  # numpy is not needed by commands that send nothing
    from node.send_source import Piece

#: Pieces under way at once. More hides the wait for fsync, but costs memory (4 MiB each).
IN_FLIGHT = 4
#: Seconds a piece may stay without success until the command gives up. A failover takes seconds.
PATIENCE_SECONDS = 120.0
PAUSE_SECONDS = (0.1, 5.0)
LISTED_REJECTS = 20


@dataclass(slots=True)
class Progress:
    """What has become of the rows so far. `done`: every piece that ends at or below it is acknowledged."""

    done: int = 0
    done_rows: int = 0
    sent_rows: int = 0
    sent_bytes: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    listed: list[dict[str, Any]] = field(default_factory=list)
    durable: str = ""
    _ahead: dict[int, Piece] = field(default_factory=dict)

    def acknowledge(self, piece: Piece, answer: dict[str, Any]) -> None:
        """Takes over the answer to a piece and moves `done` as far as it goes."""
        self.accepted += int(answer.get("accepted", 0))
        self.duplicates += int(answer.get("duplicates", 0))
        count = int(answer.get("rejectedCount", 0))
        self.rejected += count
        self.durable = answer.get("durable", self.durable)
        self.sent_rows += piece.rows
        self.sent_bytes += piece.end - piece.offset
        for one in answer.get("rejected", []):
            self.codes[str(one.get("code", "unknown"))] += 1
            if len(self.listed) < LISTED_REJECTS:
                self.listed.append({**one, "row": piece.row_in_file(int(one.get("row") or 1))})
        unnamed = count - len(answer.get("rejected", []))
        if unnamed > 0:
            self.codes["not listed"] += unnamed
        self._ahead[piece.offset] = piece
        self._advance()

    def _advance(self) -> None:
        while (piece := self._ahead.pop(self.done, None)) is not None:
            self.done = piece.end
            self.done_rows = piece.first_row + piece.rows - 1


class Shipper:
    """Sends pieces to `/logs` and keeps the progress. `on_progress` is called after each answer."""

    def __init__(
        self,
        api: Api,
        identity: str,
        content_type: str,
        params: dict[str, str],
        on_progress: Callable[[], None] = lambda: None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self.progress = Progress()
        self._api = api
        self._identity = identity
        self._content_type = content_type
        self._params = params
        self.on_progress = on_progress
        self._patience = patience_seconds

    async def run(self, pieces: Iterator[Piece], start: int, start_row: int) -> None:
        """Sends all pieces; returns when each is acknowledged, raises at the first that can't be.

        Raises:
            QuorumlogError: the cluster refuses for good, or did not answer for `patience_seconds`.
        """
        self.progress.done, self.progress.done_rows = start, start_row
        slots = asyncio.Semaphore(IN_FLIGHT)
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await slots.acquire()
                    piece = await asyncio.to_thread(next, pieces, None)
                    if piece is None:
                        return
                    task = group.create_task(self._deliver(piece))
                    task.add_done_callback(lambda _: slots.release())
        except* (QuorumlogError, CliError) as failures:
            raise _first(failures) from None

    async def _deliver(self, piece: Piece) -> None:
        if piece.skipped:
            row = {"row": 1, "code": "row_too_large", "reason": "the row is too long to be sent"}
            answer: dict[str, Any] = {"rejectedCount": 1, "rejected": [row]}
        else:
            answer = await self.post(piece)
        self.progress.acknowledge(piece, answer)
        self.on_progress()

    async def post(self, piece: Piece) -> dict[str, Any]:
        """The answer to a piece, tried again until there is one."""
        headers = {
            "Content-Type": self._content_type,
            "Idempotency-Key": key_of(self._identity, piece.offset, piece.body),
        }
        loop = asyncio.get_running_loop()
        give_up, pause = loop.time() + self._patience, PAUSE_SECONDS[0]
        while True:
            self._api.turn()
            try:
                reply = await self._api.reply("POST", "/logs", self._params, headers, piece.body)
                return read_answer(reply)
            except TooLarge as error:
                raise CliError(
                    f"rows {piece.first_row}-{piece.first_row + piece.rows - 1} are too large: {error}",
                    "is the server's body limit below 4 MiB? see [ingest] in docs/operations.md",
                ) from error
            except QuorumlogError as error:
                wait = max(pause, error.retry_after_seconds or 0.0)
                if not is_transient(error) or loop.time() + wait > give_up:
                    raise
                await asyncio.sleep(wait)
                pause = min(pause * 2, PAUSE_SECONDS[1])


async def join(api: Api) -> str:
    """The id of the cluster; its ingestors become servers to send to.

    Raises:
        ConnectionLost: no server answers, which is said at once and not after much patience.
    """
    cluster = await api.get("/cluster")
    nodes = [one for one in cluster.get("nodes", []) if "ingestor" in one.get("roles", ())]
    api.add_servers([str(one.get("http") or "") for one in nodes])
    return str(cluster.get("cluster_id", ""))


def read_answer(reply: Reply) -> dict[str, Any]:
    """The counts of an answer. A 400 that counts rows is one too: all of them were bad.

    Raises:
        QuorumlogError: the request as a whole failed.
    """
    if reply.status in (200, 400):
        try:
            body = json.loads(reply.body)
        except ValueError:
            body = None
        if isinstance(body, dict) and ("rejectedCount" in body or reply.status == 200):
            return body
    raise error_from(reply.status, reply.headers, reply.body)


def _first(failures: BaseExceptionGroup) -> BaseException:
    error: BaseException = failures
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
