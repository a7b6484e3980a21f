"""Answers what the server asks to have again: the shell around `replay`. Internal to `Sender`.

Rows that are still in the buffer go out as any batch, same bytes and seqs, and are stored once. What is
gone is said: to the request if there is one; a gap below our own ack that nobody can fill any more is
declared as skipped. Runs within the sender's limits and tasks, so that no row of an old epoch is sent
under a new one.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import quote, urlencode

from .answers import IngestAnswer, read_ingest, read_json
from .batch import ProducerStats, SendSettings
from .buffer import Buffer
from .courier import Courier
from .errors import InvalidRequest, QuorumlogError
from .ranges import Range
from .replay import GAP, ReplayPlan

log = logging.getLogger(__name__)

#: Seconds for one question whether something is asked for.
_ASK_SECONDS = 15.0


class Replayer:
    """The replays of one producer.

    Args:
        post: sends rows, returns when they are answered.
        accept: takes the answer over: (first, last, answer).
        skip: declares a range as lost for ever.
        wake: there may be something to send.
    """

    def __init__(
        self,
        buffer: Buffer,
        courier: Courier,
        settings: SendSettings,
        stats: ProducerStats,
        post: Callable[[list[bytes]], Awaitable[IngestAnswer]],
        accept: Callable[[Range, IngestAnswer], None],
        skip: Callable[[int, int, str], None],
        wake: Callable[[], None],
    ) -> None:
        self._wake = wake
        self.plan = ReplayPlan()
        self._buffer = buffer
        self._courier = courier
        self._settings = settings
        self._stats = stats
        self._post = post
        self._accept = accept
        self._skip = skip

    def on_answer(self, answer: IngestAnswer, unfillable: Sequence[Range]) -> None:
        """What an answer asks for."""
        if unfillable:
            self.plan.ask(GAP, unfillable)
        for name, ranges in answer.replay:
            self.plan.ask(name, ranges)

    async def send(self, name: str, chunk: Range) -> None:
        """Sends a chunk that `plan.next` gave, or the first run of it that is still here.

        Raises:
            BufferFailed: the file cannot be read. Fenced: as `post`.
        """
        first, last = chunk
        try:
            size = self._settings.batch_bytes
            start, rows = await asyncio.to_thread(self._buffer.again, first, last, size)
            end = start + len(rows) - 1
            if first < start:
                await self._is_gone(name, first, start - 1)
            answer = await self._posted(name, (start, end), rows) if rows else None
        except BaseException:
            self.plan.put_back(name)
            raise
        self.plan.done(name, first, end)
        if answer is not None:
            self._stats.rows_replayed += len(rows)
            self._accept((start, end), answer)

    async def _posted(self, name: str, sent: Range, rows: list[bytes]) -> IngestAnswer | None:
        try:
            return await self._post(rows)
        except InvalidRequest as error:  # it was taken once; now it is not
            log.warning("rows %d-%d are refused when sent again: %s", *sent, error)
            await self._is_gone(name, *sent)
            return None

    async def _is_gone(self, name: str, first: int, last: int) -> None:
        self._stats.rows_gone += last - first + 1
        if name == GAP:
            self._skip(first, last, "acknowledged before, no longer in the producer's buffer")
            return
        body = json.dumps({"ranges": [[first, last]]}).encode()
        path = f"/logs/replay/{quote(name, safe='')}/gone"
        try:
            await self._courier.post(path, body, read_json, lambda _: True)
        except QuorumlogError as error:  # it will ask again, or expire
            log.warning("rows %d-%d are gone, which was not heard: %s", first, last, error)

    async def ask_often(self, silence: Callable[[], float]) -> None:
        """Asks what the server lacks: at once if there were rows before, then whenever it is quiet.

        `silence`: seconds since the last answer of the server.
        """
        pause = self._settings.replay_poll_seconds
        due = self._buffer.last_seq > 0
        while True:
            if due and not self._buffer.needs_epoch:
                await self._ask()
            await asyncio.sleep(max(pause - silence(), pause / 10))
            due = silence() >= pause and self._buffer.last_seq > 0

    async def _ask(self) -> None:
        meta = self._buffer.meta
        if meta.epoch < 1:
            return
        query = {"service": meta.service, "producer": meta.producer, "epoch": meta.epoch}
        path = f"/logs/replay?{urlencode(query)}"
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                answer = await self._courier.post(
                    path, b"", read_ingest, lambda _: True, method="GET"
                )
        except (QuorumlogError, TimeoutError) as error:
            log.debug("not learned what is asked for: %s", error)
            return
        if meta.epoch == self._buffer.meta.epoch:
            # Its ackTill is not taken: only an answer to our own rows shows that the seqs are ours.
            # Lost is what was acked before the question; what was acked since, it may not know yet.
            lost = [(a, min(b, meta.ack_till)) for a, b in answer.missing if a <= meta.ack_till]
            self.on_answer(answer, lost)
            self._wake()
