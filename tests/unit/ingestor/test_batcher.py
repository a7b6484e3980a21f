"""Natural batching: what becomes one block, what waits, what does not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ingestor.answers import ack_rule
from ingestor.batcher import Batcher
from ingestor.outcomes import Submission
from ingestor.shards import Piece, unsequenced_pieces
from ingestor.write_metrics import WriteMetrics
from ingestor.write_settings import WriteSettings
from records.consistency import QuorumPolicy
from runtime.clock import SystemClock
from runtime.deadline import Deadline
from runtime.metrics import Metrics
from runtime.tasks import Supervisor
from tests.support.fake_replica import FakeView
from tests.support.write_path import BASE, body_batch, rows

OTHERS = FakeView(nodes=("d", "e", "f"))


class Writer:
    """Takes blocks; each is under way until the test lets it go."""

    def __init__(self) -> None:
        self.blocks: list[list[int]] = []
        self.gates: list[asyncio.Event] = []

    async def write(self, block: list[Submission]) -> None:
        self.blocks.append([one.piece.rows for one in block])
        gate = asyncio.Event()
        self.gates.append(gate)
        await gate.wait()
        for one in block:
            one.done.set_result(None)


def piece(count: int, view: FakeView | None = None) -> Piece:
    """A piece of `count` rows."""
    batch = body_batch(rows(count))
    return unsequenced_pieces(batch, view or FakeView(), BASE, 3_600_000_000, 1 << 20)[0]


def submission(count: int, view: FakeView | None = None) -> Submission:
    """A piece on its way."""
    rule = ack_rule(QuorumPolicy(), None)
    future = asyncio.get_running_loop().create_future()
    limit = Deadline.after(SystemClock(), 5)
    return Submission(piece(count, view), rule.needed(3), rule.w, limit, set(), future)


@asynccontextmanager
async def batching(**settings: float) -> AsyncIterator[tuple[Batcher, Writer, Metrics]]:
    """A batcher with small numbers: target 10 rows, at most 15, two blocks under way."""
    numbers = {
        "block_target_rows": 10,
        "block_max_rows": 15,
        "blocks_in_flight": 2,
        "linger_seconds": 5.0,
        **settings,
    }
    metrics, writer = Metrics(), Writer()
    async with Supervisor("t") as tasks:
        chosen = WriteSettings(**numbers)  # type: ignore[arg-type]
        yield (
            Batcher(writer.write, chosen, SystemClock(), tasks, WriteMetrics(metrics)),
            writer,
            metrics,
        )


async def turn() -> None:
    """Lets started tasks run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_lone_request_is_written_at_once() -> None:
    """Nothing under way: no waiting for company."""
    async with batching() as (batcher, writer, _):
        batcher.submit(submission(1))
        await turn()

        assert writer.blocks == [[1]]


async def test_what_comes_meanwhile_gathers_and_goes_together() -> None:
    """Three requests come while the first is written: one block of three, in order of arrival."""
    async with batching() as (batcher, writer, metrics):
        batcher.submit(submission(1))
        for count in (2, 3, 4):
            batcher.submit(submission(count))
        await turn()
        assert writer.blocks == [[1]]
        assert metrics.snapshot()["quorumlog_write_queue_rows"] == 9

        writer.gates[0].set()
        await turn()

        assert writer.blocks == [[1], [2, 3, 4]]
        assert metrics.snapshot()["quorumlog_write_queue_rows"] == 0


async def test_enough_rows_do_not_wait_for_the_block_under_way() -> None:
    """At the target a second block goes out beside the first."""
    async with batching() as (batcher, writer, _):
        for count in (1, 6, 6):
            batcher.submit(submission(count))
        await turn()

        assert writer.blocks == [[1], [6, 6]]


async def test_blocks_under_way_are_bounded() -> None:
    """Two at once; the third waits for one of them, however many rows it has."""
    async with batching() as (batcher, writer, _):
        for count in (1, 12, 13):
            batcher.submit(submission(count))
        await turn()
        assert writer.blocks == [[1], [12]]

        writer.gates[1].set()
        await turn()

        assert writer.blocks == [[1], [12], [13]]


async def test_a_block_takes_no_more_than_its_limit() -> None:
    """8 + 8 exceeds 15 rows: two blocks. A request beyond the limit goes alone."""
    async with batching(blocks_in_flight=1) as (batcher, writer, _):
        for count in (1, 8, 8, 40, 2):
            batcher.submit(submission(count))
        for _ in range(4):
            await turn()
            writer.gates[-1].set()
        await turn()

        assert writer.blocks == [[1], [8], [8], [40], [2]]


async def test_a_big_request_is_not_mixed_with_small_ones() -> None:
    """Its rows would have to be copied."""
    async with batching(blocks_in_flight=1, block_max_rows=100) as (batcher, writer, _):
        for count in (1, 2, 20, 3):
            batcher.submit(submission(count))
        for _ in range(4):
            await turn()
            writer.gates[-1].set()
        await turn()

        assert writer.blocks == [[1], [2], [20], [3]]


async def test_nobody_lingers_for_long() -> None:
    """The block under way hangs: after `linger_seconds` the next goes all the same."""
    async with batching(linger_seconds=0.05) as (batcher, writer, _):
        batcher.submit(submission(1))
        batcher.submit(submission(2))
        await turn()
        assert writer.blocks == [[1]]

        await asyncio.sleep(0.1)

        assert writer.blocks == [[1], [2]]


async def after_a_block_of_two(batcher: Batcher, writer: Writer) -> None:
    """Requests met behind a block that took a moment; all are done."""
    for count in (1, 2, 3):
        batcher.submit(submission(count))
    await turn()
    await asyncio.sleep(0.4)
    for gate in range(2):
        writer.gates[gate].set()
        await turn()
    assert writer.blocks == [[1], [2, 3]]


async def test_requests_that_came_together_are_waited_for_again() -> None:
    """The two senders that were answered at once come back one after the other: one block."""
    async with batching() as (batcher, writer, _):
        await after_a_block_of_two(batcher, writer)

        batcher.submit(submission(4))
        await turn()
        assert len(writer.blocks) == 2
        batcher.submit(submission(5))
        await asyncio.sleep(0.2)

        assert writer.blocks[2:] == [[4, 5]]


async def test_waiting_in_vain_is_not_repeated() -> None:
    """Nobody came along: the next lone request goes at once."""
    async with batching() as (batcher, writer, _):
        await after_a_block_of_two(batcher, writer)
        batcher.submit(submission(4))
        await asyncio.sleep(0.2)
        assert writer.blocks[2:] == [[4]]
        writer.gates[2].set()
        await turn()

        batcher.submit(submission(5))
        await turn()

        assert writer.blocks[3:] == [[5]]


async def test_a_full_block_waits_for_no_company() -> None:
    """Rows enough are rows enough."""
    async with batching() as (batcher, writer, _):
        await after_a_block_of_two(batcher, writer)

        batcher.submit(submission(10))
        await turn()

        assert writer.blocks[2:] == [[10]]


async def test_other_owners_have_a_lane_of_their_own() -> None:
    """A slow set of owners holds up nobody else."""
    async with batching() as (batcher, writer, _):
        batcher.submit(submission(1))
        batcher.submit(submission(2, OTHERS))
        await turn()

        assert sorted(writer.blocks) == [[1], [2]]


async def test_closing_gives_back_what_gathers() -> None:
    """No further block is formed, also not when one under way ends."""
    async with batching() as (batcher, writer, metrics):
        batcher.submit(submission(1))
        waiting = submission(2)
        batcher.submit(waiting)
        await turn()

        assert batcher.close() == [waiting]
        writer.gates[0].set()
        await turn()

        assert writer.blocks == [[1]]
        assert metrics.snapshot()["quorumlog_write_queue_rows"] == 0
