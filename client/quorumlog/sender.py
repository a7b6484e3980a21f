"""Sends a buffer's rows to their shard's leader until a quorum has them. Internal to `Producer`.

The loop takes the lowest unsettled rows, posts them, and repeats *the same bytes under the same seqs*
on any doubt, through any node: the server stores a row once however often it comes. What an answer
means for the rows is decided in `window`, whom to ask in `leaders`, what an error is in `answers`.

A lost identity. If the server knows seqs that this buffer never sent, or other bytes under one of
ours, the name was used before by a buffer that is gone (or a power cut took our tail). Then, in this
order, so that a crash after each step is harmless:

1. no new requests; those on the way end, each row's fate is known;
2. the buffer notes durably that only the rows without a promise remain (`begin_move`);
3. the cluster issues a new epoch, durable on its side;
4. the buffer stores it, with the rows renumbered from 1 (`finish_move`); only then it is used.

A service that is spread over more shards: an answer then says that a new epoch would be written elsewhere.
The sender sends no row that it has not sent before until all others are durable, so that nothing is
renumbered whose fate is not known, and takes the same steps.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace

from .answers import IngestAnswer, Rejected, read_ingest
from .batch import (
    ProducerStats,
    SendSettings,
    Skip,
    batch_body,
    is_conflict,
    is_final_for_rows,
    read_epoch,
)
from .buffer import Buffer
from .courier import NO_SUCH_PATH, Courier
from .errors import (
    BufferFailed,
    Fenced,
    InvalidRequest,
    QuorumlogError,
    Unauthorized,
)
from .leaders import Leaders
from .ranges import Range
from .replayer import Replayer
from .window import AckWindow
from .wire import Wire

log = logging.getLogger(__name__)

#: The server lists at most 100 bad rows: a batch in conflict is sent again in pieces this small.
_CONFLICT_ROWS = 100
#: Seconds between two moves that only spread the load, whatever answers say. Each costs a round trip.
_SPREAD_SECONDS = 60.0
_NO_SEQ_AFTER = 1 << 62


class Sender:
    """The sending half of a producer. Lives on one event loop; `run` until cancelled."""

    def __init__(
        self,
        buffer: Buffer,
        wire: Wire,
        leaders: Leaders,
        settings: SendSettings,
        stats: ProducerStats,
        on_rejected: Callable[[Rejected], None],
    ) -> None:
        self._buffer = buffer
        self._courier = Courier(wire, leaders, self._note)
        self._settings = settings
        self._stats = stats
        self._on_rejected = on_rejected
        self._window = AckWindow(buffer.meta.ack_till, buffer.meta.next_seq - 1)
        self._skips: list[Skip] = []
        for first, last in buffer.lost:
            self._add_skip(first, last, "lost in a damaged buffer")
        self._replayer = Replayer(
            buffer,
            self._courier,
            settings,
            stats,
            lambda rows: self._post_rows(rows, []),
            lambda request, answer: self._accept(request, answer, []),
            self._add_skip,
            self.wake,
        )
        self._replay_next = False
        self._answered_at = time.monotonic()
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiters: list[tuple[list[int], asyncio.Future[None]]] = []
        self._linger_until: float | None = None
        self._identity_lost = self._spreading = self._moving = False
        self._spread_at = -_SPREAD_SECONDS
        self._again_in_a_row = 0
        #: The latest failure, None while all is well.
        self.failure: QuorumlogError | None = None
        #: Set when this producer must not write any more.
        self.fatal: QuorumlogError | None = None

    def wake(self) -> None:
        """There is something to do. On the loop's thread."""
        self._wake.set()

    @property
    def waiting(self) -> int:
        """Rows without a promise from the server."""
        return sum(
            last - first + 1 for first, last in self._window.unsettled(self._buffer.last_seq)
        )

    async def settled(self) -> None:
        """Returns when all rows taken so far are durable on a quorum (or refused for good).

        Raises:
            Fenced, Unauthorized, InvalidRequest: waiting longer would not help.
        """
        if self.fatal is not None:
            raise self.fatal
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = ([self._buffer.last_seq], done)
        self._waiters.append(waiter)
        self._tell_waiters()
        self._wake.set()
        try:
            await done
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _tell_waiters(self, error: QuorumlogError | None = None) -> None:
        settled_till = self._window.settled_till
        moving = self._identity_lost or self._buffer.needs_epoch or self._moving
        for (target,), done in self._waiters:
            if done.done():
                continue
            if error is not None:
                done.set_exception(error)
            elif target == 0 or (target <= settled_till and not moving):
                done.set_result(None)

    # The loop.

    async def run(self) -> None:
        """Sends until cancelled, or until fenced (`fatal`)."""
        discovery = asyncio.create_task(self._courier.discover(), name="quorumlog-discovery")
        asking = asyncio.create_task(
            self._replayer.ask_often(lambda: time.monotonic() - self._answered_at),
            name="quorumlog-asking",
        )
        try:
            while self.fatal is None:
                try:
                    await self._step()
                except Fenced as error:
                    self._stop_for_ever(error)
                except QuorumlogError as error:
                    self._note(error)
                    await asyncio.sleep(1)
                except Exception:
                    self._stats.loop_errors += 1
                    log.exception("sender step failed, it goes on")
                    await asyncio.sleep(1)
        finally:
            tasks = [discovery, asking, *self._tasks]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _step(self) -> None:
        lost = self._identity_lost and not self._tasks
        if self._buffer.needs_epoch or lost or self._moving or self._has_drained():
            await self._move()
        self._wake.clear()
        while not self._identity_lost and self._launch():
            pass
        await self._wake.wait()

    def _has_drained(self) -> bool:
        """Whether it may move to spread the load: all that was ever sent is durable."""
        settled = self._window.settled_till >= self._window.highest_sent
        return self._spreading and settled and not self._tasks and not self._skips

    def _launch(self) -> bool:
        """Starts one request if there is reason for one."""
        available = self._buffer.collect_ready()
        if self._spreading:
            available = min(available, self._window.highest_sent)
        if len(self._tasks) >= self._settings.max_in_flight:
            return False
        if self._replay_next and self._launch_replay():
            return True
        request = self._window.next_range(available, self._settings.batch_rows)
        if request is None:
            return self._launch_replay() or self._launch_skips(available)
        if not self._is_due(request):
            return self._launch_replay()
        self._linger_until = None
        self._replay_next = True  # in turn, so that neither starves
        self._spawn(request)
        return True

    def _launch_replay(self) -> bool:
        """Starts to send rows again that somebody asked for."""
        self._replay_next = False
        chunk = self._replayer.plan.next(self._settings.batch_rows)
        if chunk is None:
            return False
        self._start(self._replay(*chunk), f"quorumlog-replay-{chunk[1][0]}")
        return True

    def _launch_skips(self, available: int) -> bool:
        """Skips travel with rows; alone only if no row is left to wait for."""
        if not self._skips or self._tasks or self._window.in_flight:
            return False
        request = (available + 1, available)  # no rows
        self._spawn(request)
        return True

    def _spawn(self, request: Range) -> None:
        if request[0] <= request[1]:
            self._window.start(*request)
        self._start(self._deliver(request), f"quorumlog-send-{request[0]}")

    def _start(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._on_delivered)

    def _on_delivered(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._wake.set()
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, Fenced):
            self._stop_for_ever(error)
        elif error is not None:
            self._stats.loop_errors += 1
            log.error("delivery failed, its rows are sent again", exc_info=error)

    def _is_due(self, request: Range) -> bool:
        first, last = request
        now = time.monotonic()
        if last - first + 1 >= self._settings.batch_rows or self._waiters:
            return True
        if self._linger_until is None:
            self._linger_until = now + self._settings.linger_seconds
            asyncio.get_running_loop().call_later(self._settings.linger_seconds, self._wake.set)
        return now >= self._linger_until

    def _stop_for_ever(self, error: QuorumlogError) -> None:
        if self.fatal is None:
            log.error("producer %s stops: %s", self._buffer.meta.producer, error)
        self.fatal = self.failure = error
        self._tell_waiters(error)
        self._wake.set()

    # One request.

    async def _deliver(self, request: Range) -> None:
        first, last = request
        try:
            if self._buffer.in_memory(first):
                rows = self._buffer.rows(first, last, self._settings.batch_bytes)
            else:
                rows = await asyncio.to_thread(
                    self._buffer.rows, first, last, self._settings.batch_bytes
                )
            await self._send(first, rows)
        except BufferFailed as error:
            self._note(error)
            await asyncio.sleep(1)
        finally:
            self._window.stop(first, last)

    async def _replay(self, name: str, chunk: Range) -> None:
        try:
            await self._replayer.send(name, chunk)
        except BufferFailed as error:
            self._note(error)
            await asyncio.sleep(1)

    async def _send(self, first: int, rows: list[bytes]) -> None:
        skips = list(self._skips)
        try:
            answer = await self._post_rows(rows, skips)
        except InvalidRequest as error:
            await self._send_parts(first, rows, error)
            return
        if answer.conflict and answer.rejected_count > len(answer.rejected) and len(rows) > 1:
            size = min(_CONFLICT_ROWS, (len(rows) + 1) // 2)
            for at in range(0, len(rows), size):
                await self._send(first + at, rows[at : at + size])
            return
        self._accept((first, first + len(rows) - 1), answer, skips)
        if self._again_in_a_row:
            await asyncio.sleep(min(2.0, 0.05 * 2 ** min(self._again_in_a_row, 10)))

    async def _send_parts(self, first: int, rows: list[bytes], error: InvalidRequest) -> None:
        """The server cannot read the request: find the row, and give up that row alone."""
        if len(rows) > 1:
            half = len(rows) // 2
            await self._send(first, rows[:half])
            await self._send(first + half, rows[half:])
        elif rows:
            self._stats.rows_given_up += 1
            self._report(Rejected(1, first, error.code, str(error)))
            self._add_skip(first, first, f"refused: {error.code}")
        else:  # skips alone: they go with the next rows, or are tried again later
            self._note(error)
            await asyncio.sleep(1)

    def _accept(self, request: Range, answer: IngestAnswer, skips: list[Skip]) -> None:
        first, last = request
        self._answered_at = time.monotonic()
        self._stats.rows_sent += last - first + 1
        self._stats.duplicates += answer.duplicates
        self._again_in_a_row = 0
        if answer.conflict:
            self._on_conflict(request, answer)
            return
        self._count_rejected(answer.rejected, answer.rejected_count)
        if first <= last:
            self._window.on_stored(first, last)
        if self._window.is_foreign(answer.ack_till, answer.missing):
            self._lose_identity("the server knows seqs that this buffer never sent")
            return
        for skip in skips:
            self._window.on_stored(skip[0], skip[1])
            if skip in self._skips:
                self._skips.remove(skip)
        before = self._window.ack_till
        progress = self._window.on_ack(request, answer.ack_till, answer.missing)
        self._buffer.ack(progress.ack_till)
        self._stats.rows_acked += progress.ack_till - before
        self._again_in_a_row = self._again_in_a_row + 1 if progress.again else 0
        for low, high in progress.unfillable:
            self._stats.unfillable += high - low + 1
            log.error("the server misses seqs %d-%d that it had acknowledged", low, high)
        self._replayer.on_answer(answer, progress.unfillable)
        if answer.new_epoch and self._settings.spread and not self._spreading:
            self._spreading = time.monotonic() - self._spread_at >= _SPREAD_SECONDS
        self._tell_waiters()

    def _on_conflict(self, request: Range, answer: IngestAnswer) -> None:
        """Other bytes are stored under some of our seqs; all other rows of it are durable."""
        self._stats.conflicts += 1
        first, last = request
        conflicts = {
            item.seq or first + item.row - 1 for item in answer.rejected if is_conflict(item)
        }
        if answer.rejected_count <= len(answer.rejected) and conflicts:
            for seq in range(first, last + 1):  # at most a batch, and once in a producer's life
                if seq not in conflicts:
                    self._window.on_stored(seq, seq)
        others = tuple(item for item in answer.rejected if not is_conflict(item))
        self._count_rejected(others, len(others))
        self._lose_identity(f"conflict at seqs {sorted(conflicts)[:10]}")

    def _lose_identity(self, why: str) -> None:
        if not self._identity_lost:
            log.warning(
                "producer %s epoch %d: %s; asking for a new epoch",
                self._buffer.meta.producer,
                self._buffer.meta.epoch,
                why,
            )
        self._identity_lost = True

    def _count_rejected(self, rejected: tuple[Rejected, ...], count: int) -> None:
        self._stats.rejected += count
        for item in rejected:
            self._report(item)
        if count > len(rejected):
            log.warning("%d more rows were rejected without details", count - len(rejected))

    def _report(self, item: Rejected) -> None:
        try:
            self._on_rejected(item)
        except Exception:
            self._stats.loop_errors += 1
            log.exception("on_rejected raised")

    def _add_skip(self, first: int, last: int, reason: str) -> None:
        self._window.add_hole(first, last)
        self._skips.append((first, last, reason[:200]))
        self._stats.rows_skipped += last - first + 1

    # A new epoch.

    async def _move(self) -> None:
        """Steps 2-4 of the module's text; at the start of a fresh, named buffer only 3 and 4."""
        fresh = self._buffer.meta.epoch == 0
        self._moving = True
        if (self._identity_lost or self._spreading) and not self._buffer.meta.moving:
            till = self._buffer.written_till
            later = (till + 1, _NO_SEQ_AFTER)  # rows may be taken before the buffer has heard of it
            keep = [*self._window.unsettled(till), later]
            await asyncio.to_thread(self._buffer.begin_move, keep)
        epoch = await self._ask_epoch(fresh)
        await asyncio.to_thread(self._buffer.finish_move, epoch)
        self._window = AckWindow(0, 0)
        self._replayer.plan.clear()
        self._skips.clear()
        self._identity_lost = self._spreading = self._moving = False
        self._spread_at = time.monotonic()
        for target, _ in self._waiters:
            target[0] = self._buffer.last_seq
        self._tell_waiters()

    async def _ask_epoch(self, fresh: bool) -> int:
        meta = self._buffer.meta
        body = json.dumps({"service": meta.service, "producer": meta.producer}).encode()
        paths_missing = 0

        def is_final(error: QuorumlogError) -> bool:
            nonlocal paths_missing
            paths_missing += error.status in NO_SUCH_PATH
            return isinstance(error, Fenced) or (fresh and paths_missing >= self._courier.reach)

        try:
            epoch = await self._courier.post("/ingest/epoch", body, read_epoch, is_final)
        except InvalidRequest:
            log.warning("the server issues no epochs, %s starts with epoch 1", meta.producer)
            return 1
        self._stats.epochs_issued += 1
        return epoch

    # The network.

    async def _post_rows(self, rows: list[bytes], skips: list[Skip]) -> IngestAnswer:
        body = batch_body(self._buffer.meta, rows, skips)
        ack, told = self._settings.ack, self._window.ack_till
        path = "/ingest" if ack is None else f"/ingest?ack={ack}"
        answer = await self._courier.post(path, body, read_ingest, is_final_for_rows)
        # What another answer acknowledged while this one was under way is not missing any more.
        missing = self._window.not_acked_since(told, answer.missing)
        return answer if missing == answer.missing else replace(answer, missing=missing)

    def _note(self, error: QuorumlogError | None) -> None:
        """Remembers the latest failure; those that time alone won't mend end a `flush`."""
        self.failure = error
        if error is None:
            return
        reason = error.code
        self._stats.retries += 1
        self._stats.retries_by_reason[reason] = self._stats.retries_by_reason.get(reason, 0) + 1
        if isinstance(error, Unauthorized | InvalidRequest):
            self._tell_waiters(error)
