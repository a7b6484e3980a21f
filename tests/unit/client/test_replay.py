"""What producers are asked to send again: the plan, and a producer that answers from its buffer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from quorumlog import Producer
from quorumlog.replay import GAP, REQUESTS, ROUNDS, ReplayPlan
from tests.unit.client.fake_server import FakeNode, answer_with, cut


async def until(happened: Callable[[], bool]) -> None:
    for _ in range(2000):
        if happened():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen")


# ---- the plan ---------------------------------------------------------------------------------------


def test_one_chunk_of_a_request_is_out_at_a_time() -> None:
    """1-5 by two: 1-2, then 3-4, then 5."""
    plan = ReplayPlan()
    plan.ask("a", [(1, 5)])

    assert plan.next(2) == ("a", (1, 2))
    assert plan.next(2) is None
    plan.done("a", 1, 2)
    assert plan.next(2) == ("a", (3, 4))
    plan.put_back("a")
    assert plan.next(2) == ("a", (3, 4))
    plan.done("a", 3, 4)
    assert plan.next(2) == ("a", (5, 5))


def test_what_is_waited_for_although_it_was_sent_is_sent_a_few_times() -> None:
    """A server that never counts it does not keep us busy for ever; other rows are another matter."""
    plan = ReplayPlan()
    sent = 0
    for _ in range(50):
        plan.ask("a", [(1, 1)])
        if plan.next(9):
            plan.done("a", 1, 1)
            sent += 1
    assert sent == ROUNDS

    plan.ask("a", [(7, 7)])
    assert plan.next(9) == ("a", (7, 7))


def test_what_was_never_sent_goes_out_beside_what_was_sent_too_often() -> None:
    """Row 1 is never counted; row 2, told later by the same request, is sent all the same, once."""
    plan = ReplayPlan()
    for _ in range(ROUNDS):
        plan.ask("a", [(1, 1)])
        assert plan.next(9) == ("a", (1, 1))
        plan.done("a", 1, 1)

    plan.ask("a", [(1, 2)])

    assert plan.next(9) == ("a", (2, 2))
    plan.done("a", 2, 2)
    plan.ask("a", [(1, 2)])
    assert plan.next(9) is None


def test_requests_are_bounded_and_finished_ones_make_room() -> None:
    """The seventeenth waits for a later answer."""
    plan = ReplayPlan()
    for number in range(REQUESTS + 1):
        plan.ask(str(number), [(1, 1)])
    for number in range(REQUESTS):
        assert plan.next(1) == (str(number), (1, 1))
    assert plan.next(1) is None
    plan.done("3", 1, 1)

    plan.ask("late", [(2, 2)])
    assert plan.next(1) == ("late", (2, 2))


@given(st.sets(st.integers(1, 30)), st.integers(1, 4), st.sets(st.integers(1, 30)))
def test_each_row_asked_for_is_given_once_a_round(
    asked: set[int], most: int, late: set[int]
) -> None:
    """Chunks are disjoint, cover what was asked, and a repeat in between changes nothing."""
    plan, given_out = ReplayPlan(), []
    plan.ask(GAP, [(n, n) for n in asked])
    while (found := plan.next(most)) is not None:
        name, (first, last) = found
        plan.ask(name, [(n, n) for n in late])
        given_out += range(first, last + 1)
        plan.done(name, first, last)

    assert sorted(given_out) == sorted(asked)


# ---- a producer ---------------------------------------------------------------------------------------


@asynccontextmanager
async def acked(
    folder: Path, rows: int, one_by_one: bool = False, **settings: Any
) -> AsyncIterator[tuple[FakeNode, Producer]]:
    """A producer with a file whose rows 1..`rows` are acked, and its server."""
    async with FakeNode() as node, Producer([node.url], "pay", folder / "b", **settings) as made:
        for number in range(rows):
            made.send(message=f"m{number}")
            if one_by_one:
                await made.flush()
        await made.flush()
        yield node, made


async def test_rows_that_an_operator_asks_for_are_sent_again_and_what_is_gone_is_said(
    tmp_path: Path,
) -> None:
    """1-20 acked; asked for 5-8 and 90-91, told with the next answer."""
    async with acked(tmp_path, 20) as (node, producer):
        node.store.asked["ask-1"] = {5, 6, 7, 8, 90, 91}
        producer.send(message="next")

        await until(lambda: not node.store.asked["ask-1"])
        await until(lambda: producer.stats.rows_replayed == 4)

        sent = [(seq, row) for _, seq, row in node.store.received if seq in (5, 6, 7, 8)]
        assert len(sent) == 8
        assert len(set(sent)) == 4
        assert (node.store.gone["ask-1"], producer.stats.rows_gone) == ({90, 91}, 2)
        assert (producer.stats.rows_skipped, producer.ack_till) == (0, 21)


async def test_an_idle_producer_asks_and_answers(tmp_path: Path) -> None:
    """Nothing to send: it looks now and then."""
    async with acked(tmp_path, 1, replay_poll_seconds=0.05) as (node, _):
        node.store.asked["ask-1"] = {1}

        await until(lambda: not node.store.asked["ask-1"])


async def test_after_a_restart_the_list_is_asked_at_once(tmp_path: Path) -> None:
    """Rows acked by the process before are in the file still."""
    async with FakeNode() as node:
        async with Producer([node.url], "pay", tmp_path / "b") as producer:
            producer.send(message="m")
        node.store.asked["ask-1"] = {1}
        async with Producer([node.url], "pay", tmp_path / "b") as producer:
            await until(lambda: not node.store.asked["ask-1"])

        assert len(node.store.received) == 2
        assert node.store.received[0] == node.store.received[1]


async def test_rows_that_the_servers_lost_after_their_ack_are_filled_from_what_is_kept(
    tmp_path: Path,
) -> None:
    """It never should happen; if it does, the rows come again."""
    async with acked(tmp_path, 5) as (node, producer):
        (held,) = node.store.rows.values()
        lost = held.pop(3)
        producer.send(message="next")

        await until(lambda: 3 in held)
        assert held[3] == lost
        assert (producer.stats.unfillable, producer.stats.rows_skipped) == (1, 0)


async def test_what_nobody_can_fill_any_more_is_skipped_explicitly(tmp_path: Path) -> None:
    """The same without kept rows: the gap is declared, with the reason."""
    async with acked(tmp_path, 5, keep_acked_bytes=0) as (node, producer):
        (held,) = node.store.rows.values()
        (name,) = node.store.rows
        del held[3]
        producer.send(message="next")

        await until(lambda: 3 in node.store.skipped[name])
        assert "no longer" in node.store.skipped[name][3]
        await until(lambda: node.store.position(name)["ackTill"] == 6)
        assert producer.stats.rows_skipped == 1


async def test_a_kept_row_that_is_damaged_holds_nothing_up(tmp_path: Path) -> None:
    """The server lost row 3, our copy is damaged: that is declared, and what comes after it goes out."""
    async with acked(tmp_path, 5, one_by_one=True) as (node, producer):
        content = (tmp_path / "b").read_bytes()
        with (tmp_path / "b").open("r+b") as file:
            file.seek(content.index(b'"seq":3'))
            file.write(b"X")
        (name,) = node.store.rows
        del node.store.rows[name][3]
        node.store.asked["ask-1"] = {5}
        producer.send(message="next")

        await until(lambda: 3 in node.store.skipped[name])
        await until(lambda: not node.store.asked["ask-1"])
        assert producer.stats.rows_replayed == 1


async def test_an_answer_that_another_has_overtaken_makes_no_gap(tmp_path: Path) -> None:
    """Row 1 is on its way when 2 is stored: "1 is missing" arrives after 1 and 2 were acked.

    Nothing is kept, so to believe it would declare a stored row as lost, durably.
    """
    acked = asyncio.Event()

    async def overtake(server: FakeNode, _: web.Request, body: bytes) -> web.Response:
        if b'"m1"' in body:
            await until(lambda: bool(server.store.received))
        status, answer = server.store.put(body)
        if b'"m2"' in body:
            assert answer["missing"] == [1]
            await acked.wait()
        return web.json_response(answer, status=status)

    async with FakeNode() as node:
        node.gate = overtake
        async with Producer(
            [node.url], "pay", tmp_path / "b", keep_acked_bytes=0, batch_rows=1, max_in_flight=2
        ) as producer:
            producer.send(message="m1")
            producer.send(message="m2")
            await until(lambda: producer.ack_till == 2)
            acked.set()
            await producer.flush()
            producer.send(message="m3")
            await until(lambda: producer.ack_till == 3)

            assert (producer.stats.unfillable, producer.stats.rows_skipped) == (0, 0)


async def test_a_question_that_rows_have_overtaken_makes_no_gap(tmp_path: Path) -> None:
    """What the server says of rows that were acked after the question was asked is old."""
    async with FakeNode() as node:
        async with Producer([node.url], "pay", tmp_path / "b", keep_acked_bytes=0) as producer:
            producer.send(message="m1")
            await producer.flush()
            name = ("pay", producer.name, 1)
        old = node.store.position(name) | {"ackTill": 1, "missingRanges": [[2, 2]]}
        node.question_gate, before = asyncio.Event(), node.questions
        node.told_instead = old
        async with Producer(
            [node.url], "pay", tmp_path / "b", keep_acked_bytes=0, replay_poll_seconds=0.02
        ) as producer:
            await until(lambda: node.questions > before)
            producer.send(message="m2")
            producer.send(message="m3")
            await producer.flush()
            node.question_gate.set()
            await until(lambda: node.questions_answered > before)
            node.told_instead = None
            await until(
                lambda: node.questions_answered > before + 3
            )  # the first's effects are over

            assert (producer.stats.rows_skipped, producer.stats.rows_gone) == (0, 0)


async def test_batches_that_are_lost_on_the_way_leave_no_gap(tmp_path: Path) -> None:
    """Four requests under way, every third is cut: the server sees gaps, in the end there is none."""
    async with FakeNode() as node:
        count = 0

        async def gate(server: FakeNode, request: object, body: bytes) -> None:
            nonlocal count
            count += 1
            if count % 3 == 0:
                await cut(server, request, body)  # type: ignore[arg-type]

        node.gate = gate  # type: ignore[assignment]
        async with Producer(
            [node.url], "pay", tmp_path / "b", batch_rows=10, max_in_flight=4
        ) as producer:
            for number in range(200):
                producer.send(message=f"m{number}")
            await producer.flush()
            (name,) = node.store.rows

            assert sorted(node.store.rows[name]) == list(range(1, 201))
            assert producer.ack_till == 200


async def test_what_the_server_says_unasked_acks_nothing(tmp_path: Path) -> None:
    """The name was used by somebody else: only an answer to our own rows shows whose the seqs are."""
    async with acked(tmp_path, 1, replay_poll_seconds=0.02) as (node, producer):
        name = ("pay", producer.name, 1)
        node.gate = answer_with(503, {"error": "busy", "retryable": True, "retryAfterMs": 50})
        node.store.rows[name] |= {2: b'{"seq":2,"message":"theirs"}'}
        producer.send(message="ours 2")
        asked = node.questions
        await until(lambda: node.questions > asked + 2)

        assert producer.ack_till == 1
        node.gate = None
        await producer.flush()
        assert [row["message"] for row in node.store.all_rows("pay")].count("ours 2") == 1
