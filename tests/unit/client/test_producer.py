"""`Producer` against fake servers on loopback: acks, doubt, leaders, crashes, lost identities."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from quorumlog import Fenced, FlushTimeout, InvalidRequest, Producer, Rejected, Unauthorized
from tests.support.cluster import eventually
from tests.unit.client.fake_server import (
    FakeNode,
    Store,
    answer_with,
    cut,
    hint_to,
    rows_of,
    store_then_cut,
)


async def test_flush_returns_when_every_row_is_acked(tmp_path: Path) -> None:
    """Rows arrive once, numbered from 1, with names as the wire spells them."""
    async with FakeNode() as node:
        async with Producer([node.url], "pay", tmp_path / "pay.wal") as producer:
            producer.send(level="error", message="card declined", trace_id="t1", amount=3)
            producer.send(level="info", message="paid", timestamp="2026-11-21T00:00:00Z")
            await producer.flush()

            assert producer.ack_till == 2
            assert producer.waiting == 0
            assert producer.epoch == 1

        first, second = node.store.all_rows("pay")
        assert (first["seq"], first["traceId"], first["amount"]) == (1, "t1", 3)
        assert first["timestamp"].endswith("Z")
        assert second["timestamp"] == "2026-11-21T00:00:00Z"
        assert "X-Quorumlog-Redirect" in node.headers[0]


async def test_a_partial_ack_keeps_rows_and_sends_the_missing_ones_again() -> None:
    """The server calls seq 2 of 3 missing: it goes out again, with the same bytes."""
    async with FakeNode() as node:
        partial = {"ackTill": 1, "missing": [2], "missingRanges": [[2, 2]], "status": "partial"}
        partial |= {"accepted": 3, "duplicates": 0, "rejectedCount": 0, "rejected": []}

        async def lose_one(node: FakeNode, _: Any, body: bytes) -> Any:
            node.store.put(body)
            name = next(iter(node.store.rows))
            del node.store.rows[name][2]
            return await answer_with(200, partial)(node, _, body)

        node.faults.append(lose_one)
        async with Producer([node.url], "pay") as producer:
            for number in range(3):
                producer.send(message=str(number))
            await producer.flush()

            assert producer.ack_till == 3
        sent = [rows_of(body) for body in node.bodies]
        assert sent[1] == [sent[0][1]]
        assert [row["message"] for row in node.store.all_rows("pay")] == ["0", "1", "2"]


@pytest.mark.parametrize("fault", [store_then_cut, cut, answer_with(500, {}), answer_with(200, [])])
async def test_on_any_doubt_the_same_bytes_go_out_again(fault: Any) -> None:
    """Lost requests, lost answers, broken servers, unreadable answers: one row in the store."""
    async with FakeNode() as node:
        node.faults.extend([fault, fault])
        async with Producer([node.url], "pay") as producer:
            producer.send(message="once")
            await producer.flush()

            assert producer.stats.retries == 2
            assert producer.failure is None
        assert len(set(node.bodies)) == 1
        assert len(node.bodies) == 3
        assert len(node.store.all_rows("pay")) == 1


async def test_a_server_that_is_silent_to_everything_is_left_long_before_the_time_out() -> None:
    """It takes connections and never answers, as a stopped process does: the rows go elsewhere."""
    taken: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(await reader.read(1))
        await reader.read()
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as hung, FakeNode() as good:
        port = hung.sockets[0].getsockname()[1]
        servers = [f"http://127.0.0.1:{port}", good.url]
        async with Producer(servers, "pay", request_timeout_seconds=60) as producer:
            producer.send(message="x")
            await producer.flush(timeout=20)

        assert len(taken) >= 2, "it was asked for the rows and for its health"
        assert len(good.store.all_rows("pay")) == 1


async def test_a_server_that_holds_a_request_but_lives_is_waited_for() -> None:
    """While a leader changes a request is held for seconds; sending it elsewhere would not help."""
    async with FakeNode() as slow, FakeNode() as other:

        async def hold(*_: Any) -> None:
            await asyncio.sleep(1.5)

        slow.faults.append(hold)
        async with Producer([slow.url, other.url], "pay") as producer:
            producer.send(message="x")
            await producer.flush(timeout=20)

        assert len(slow.bodies) == 1
        assert other.bodies == []


async def test_a_server_that_hangs_is_left_for_another() -> None:
    """Timeouts are doubt like any other; the other node gets the same bytes."""
    store = Store()
    async with FakeNode(store) as slow, FakeNode(store) as good:
        released = asyncio.Event()

        async def hang(*_: Any) -> None:
            await released.wait()

        slow.gate = hang
        async with Producer([slow.url, good.url], "pay", request_timeout_seconds=0.2) as producer:
            producer.send(message="x")
            await producer.flush()
        assert slow.bodies == good.bodies
        released.set()


async def test_hints_lead_to_the_leader_at_once() -> None:
    """NOT_LEADER with a hint: the leader gets the next request, without a pause, and keeps it."""
    store = Store()
    async with FakeNode(store) as follower, FakeNode(store) as leader:
        follower.gate = hint_to(leader)
        async with Producer([follower.url], "pay") as producer:
            for number in range(3):
                producer.send(message=str(number))
                await producer.flush()

            assert producer.stats.retries == 0
        assert len(follower.bodies) == 1
        assert len(leader.bodies) == 3
        assert leader.headers[0]["X-Quorumlog-Redirect"] == "hint"


async def test_when_the_leader_dies_the_new_one_is_found() -> None:
    """The others first name the dead one, then the new one with a higher epoch; nothing is lost."""
    store = Store()
    async with FakeNode(store) as follower, FakeNode(store) as second:
        async with FakeNode(store) as first:
            follower.gate = hint_to(first, shard_epoch=1)
            producer = await Producer([follower.url, second.url], "pay").__aenter__()
            producer.send(message="before")
            await producer.flush()
            assert len(first.bodies) == 1
        second.gate = hint_to(first, shard_epoch=1)
        producer.send(message="after")
        await asyncio.sleep(0.1)

        follower.gate = hint_to(second, shard_epoch=2)
        second.gate = None

        await producer.flush(10)
        assert [row["message"] for row in store.all_rows("pay")] == ["before", "after"]
        await producer.close()


async def test_unreachable_leader_is_reached_through_another_node() -> None:
    """The leader is cut off from us alone: others are asked without `hint`, and pass it on."""
    store = Store()
    async with FakeNode(store) as follower:
        async with FakeNode(store) as leader:
            gone = hint_to(leader)

        async def hint_or_proxy(node: FakeNode, request: Any, body: bytes) -> Any:
            if "X-Quorumlog-Redirect" in request.headers:
                return await gone(node, request, body)
            return None

        follower.gate = hint_or_proxy
        async with Producer([follower.url], "pay") as producer:
            producer.send(message="x")
            await producer.flush(5)
        assert len(store.all_rows("pay")) == 1


async def test_members_are_discovered_from_any_one_address() -> None:
    """The only given server goes away; a discovered one takes over."""
    store = Store()
    async with FakeNode(store) as other:
        async with FakeNode(store) as given:
            given.nodes = [{"id": "o", "roles": ["ingestor"], "http": other.url}]
            producer = await Producer([given.url], "pay").__aenter__()
            producer.send(message="1")
            await producer.flush()
            await asyncio.sleep(0.05)
        producer.send(message="2")
        await producer.flush(10)
        await producer.close()
    assert len(store.all_rows("pay")) == 2


@pytest.mark.parametrize("status", [429, 503, 507])
async def test_retry_after_is_honoured(status: int) -> None:
    """No request comes before the pause that the server asked for is over."""
    async with FakeNode() as node:
        loop = asyncio.get_running_loop()
        times: list[float] = []

        async def note(*_: Any) -> None:
            times.append(loop.time())

        node.gate = note
        refuse = answer_with(status, {"error": "busy", "retryAfterMs": 1}, {"Retry-After": "1"})

        async def refuse_and_note(*given: Any) -> Any:
            times.append(loop.time())
            return await refuse(*given)

        node.faults.append(refuse_and_note)
        async with Producer([node.url], "pay") as producer:
            producer.send(message="x")
            await producer.flush()
        assert len(times) == 2
        assert times[1] - times[0] >= 1.0


async def test_rejected_rows_are_told_and_do_not_hold_the_others() -> None:
    """Seq 2 is bad for good: reported once, skipped by the server, ackTill passes it."""
    seen: list[Rejected] = []
    async with FakeNode() as node:
        node.store.bad_words.add("poison")
        async with Producer([node.url], "pay", on_rejected=seen.append) as producer:
            for message in ("a", "poison", "b"):
                producer.send(message=message)
            await producer.flush()

            assert producer.ack_till == 3
            assert producer.stats.rejected == 1
    assert [(item.row, item.seq, item.code) for item in seen] == [(2, 2, "bad_row")]


async def test_a_callback_that_raises_does_not_stop_the_producer() -> None:
    """It is the application's, and counted."""

    def broken(_: Rejected) -> None:
        raise RuntimeError("no")

    async with FakeNode() as node:
        node.store.bad_words.add("poison")
        async with Producer([node.url], "pay", on_rejected=broken) as producer:
            producer.send(message="poison")
            await producer.flush()
            assert producer.stats.loop_errors == 1


async def test_a_request_that_cannot_be_read_costs_one_row_alone() -> None:
    """A row that makes the server answer 400 is found by halving, and declared as skipped."""
    seen: list[Rejected] = []
    async with FakeNode() as node:

        async def choke(node: FakeNode, request: Any, body: bytes) -> Any:
            if b"poison" not in body:
                return None
            return await answer_with(400, {"error": "bad_json"})(node, request, body)

        node.gate = choke
        async with Producer([node.url], "pay", on_rejected=seen.append) as producer:
            for number in range(7):
                producer.send(message="poison" if number == 4 else "good")
            await producer.flush()

            assert producer.ack_till == 7
            assert producer.stats.rows_given_up == 1
        assert len(node.store.all_rows("pay")) == 6
        skipped = next(iter(node.store.skipped.values()))
        assert skipped == {5: "refused: BAD_JSON"}
    assert [item.seq for item in seen] == [5]


async def test_too_large_requests_are_sent_in_halves() -> None:
    """413 costs no row as long as a smaller request passes."""
    async with FakeNode() as node:

        async def small_only(node: FakeNode, request: Any, body: bytes) -> Any:
            if len(rows_of(body)) <= 2:
                return None
            return await answer_with(413, {})(node, request, body)

        node.gate = small_only
        async with Producer([node.url], "pay") as producer:
            for number in range(9):
                producer.send(message=str(number))
            await producer.flush()
            assert producer.stats.rows_given_up == 0
        assert len(node.store.all_rows("pay")) == 9


async def test_missing_rights_are_told_by_flush_and_rows_wait() -> None:
    """401 costs no row: the operator mends the token, the rows go in."""
    async with FakeNode() as node:
        node.gate = answer_with(401, {"error": "unauthorized"})
        async with Producer([node.url], "pay", token="t") as producer:
            producer.send(message="x")
            with pytest.raises(Unauthorized):
                await producer.flush()
            assert producer.waiting == 1

            node.gate = None

            await producer.flush()
            assert node.headers[0]["Authorization"] == "Bearer t"
        assert len(node.store.all_rows("pay")) == 1


async def test_a_configuration_error_costs_no_row() -> None:
    """400 bad_service is about us, not about a row."""
    async with FakeNode() as node:
        node.gate = answer_with(400, {"error": "bad_service"})
        async with Producer([node.url], "pay") as producer:
            producer.send(message="x")
            with pytest.raises(InvalidRequest, match="BAD_SERVICE"):
                await producer.flush()
            node.gate = None
            await producer.flush()
            assert producer.stats.rows_given_up == 0


async def test_flush_says_how_many_rows_wait_and_why() -> None:
    """Nothing is lost by a timeout: the rows go in later."""
    async with FakeNode() as node:
        node.gate = answer_with(503, {"error": "not_enough_replicas"})
        async with Producer([node.url], "pay") as producer:
            producer.send(message="x")
            with pytest.raises(FlushTimeout, match="NOT_ENOUGH_REPLICAS") as caught:
                await producer.flush(0.3)
            assert caught.value.waiting == 1
            assert isinstance(caught.value, TimeoutError)
            node.gate = None
            await producer.flush()


async def test_rows_wait_for_the_first_server_and_flush_of_nothing_returns() -> None:
    """A producer starts without a cluster."""
    async with FakeNode() as gone:
        url = gone.url
    async with Producer([url], "pay", close_timeout_seconds=0.1) as producer:
        await producer.flush(1)
        producer.send(message="x")
        with pytest.raises(FlushTimeout):
            await producer.flush(0.1)
        with pytest.raises(FlushTimeout):
            await producer.close()


async def test_unacked_rows_stay_in_the_file_for_the_next_producer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Leaving the context during an outage loses nothing, and says so."""
    async with FakeNode() as node:
        node.gate = answer_with(503, {})
        path = tmp_path / "b"
        async with Producer([node.url], "pay", path, close_timeout_seconds=0.2) as producer:
            producer.send(message="x")
        assert "stay in" in caplog.text
        node.gate = None
        async with Producer([node.url], "pay", path) as producer:
            await producer.flush()
            assert producer.ack_till == 1
        assert len(set(map(bytes, node.bodies))) == 1


async def test_a_given_name_with_a_lost_buffer_gets_a_new_epoch(tmp_path: Path) -> None:
    """The epoch is issued by the cluster before the first row; old and new rows are all there."""
    async with FakeNode() as node:
        async with Producer([node.url], "pay", tmp_path / "a", "p-1") as producer:
            producer.send(message="old")
        async with Producer([node.url], "pay", tmp_path / "b", "p-1") as producer:
            producer.send(message="new")
            await producer.flush()
            second = producer.epoch
            assert producer.stats.conflicts == 0
        async with Producer([node.url], "pay", tmp_path / "b", "p-1") as producer:
            producer.send(message="newer")
            await producer.flush()
            assert producer.epoch == second
        names = sorted(node.store.rows)
    assert [name[2] for name in names] == [names[0][2], second]
    assert second > names[0][2]
    assert len(node.store.all_rows("pay")) == 3


async def test_a_name_without_epochs_on_the_server_starts_with_1() -> None:
    """A server of the plain protocol: 404 for the epoch, after every node was asked."""
    plain = FakeNode()
    plain.no_epochs = True
    async with plain, Producer([plain.url], "pay", producer="p-1") as producer:
        producer.send(message="x")
        await producer.flush()
        assert producer.epoch == 1


@pytest.mark.parametrize("rows", [3, 250])
async def test_a_conflict_moves_the_unstored_rows_to_a_new_epoch(tmp_path: Path, rows: int) -> None:
    """The server holds other bytes under some of our seqs: nothing lost, nothing doubled.

    With more conflicts than the server lists, the batch is sent in pieces until each row's fate
    is known.
    """
    async with FakeNode() as node:
        async with Producer([node.url], "pay", tmp_path / "b", linger_seconds=5) as producer:
            name = ("pay", producer.name, 1)
            theirs = {seq: b'{"seq":%d,"message":"theirs"}' % seq for seq in range(1, rows, 2)}
            node.store.rows[name] = dict(theirs)
            for number in range(rows):
                producer.send(message=str(number))
            await producer.flush()

            assert producer.epoch == 2
            assert producer.stats.epochs_issued == 1
            producer.send(message="after")
            await producer.flush()
        stored = [row["message"] for row in node.store.all_rows("pay")]
        ours = sorted(message for message in stored if message != "theirs")
    assert ours == sorted([*map(str, range(rows)), "after"])


async def test_seqs_known_to_the_server_but_not_to_us_are_a_lost_identity(tmp_path: Path) -> None:
    """A power cut took the buffer's tail: ackTill is beyond what we ever sent. No row is dropped."""
    async with FakeNode() as node:
        path = tmp_path / "b"
        async with Producer([node.url], "pay", path) as producer:
            producer.send(message="1")
            await producer.flush()
            early = path.read_bytes()
            for number in range(2, 6):
                producer.send(message=str(number))
            await producer.flush()
        path.write_bytes(early)

        async with Producer([node.url], "pay", path) as producer:
            for number in range(6, 16):
                producer.send(message=str(number))
            await producer.flush()
            assert producer.epoch == 2
        stored = sorted(int(row["message"]) for row in node.store.all_rows("pay"))
    assert stored == list(range(1, 16))


async def test_an_ack_beyond_what_was_sent_is_not_believed(tmp_path: Path) -> None:
    """Someone else's rows 1 and 3 to 8 fill the gap around our 2: ours are not taken for theirs."""
    async with FakeNode() as node:
        async with Producer([node.url], "pay", tmp_path / "b") as producer:
            producer.send(message="1")
            await producer.flush()
            held = node.store.rows["pay", producer.name, 1]
            held.update({seq: b'{"seq":%d,"message":"x"}' % seq for seq in range(3, 9)})
            for number in (2, 3, 4):
                producer.send(message=str(number))
                await producer.flush()
            assert producer.epoch == 2
        messages = [row["message"] for row in node.store.all_rows("pay")]
    assert sorted(message for message in messages if message != "x") == ["1", "2", "3", "4"]


async def test_a_fenced_producer_stops_loudly(tmp_path: Path) -> None:
    """A newer one writes under the name: flush, send and close all say so, rows stay in the file."""
    async with FakeNode() as node:
        producer = await Producer([node.url], "pay", tmp_path / "b", "p-1").__aenter__()
        producer.send(message="1")
        await producer.flush()
        node.store.epochs["pay", "p-1"] = 9

        producer.send(message="2")
        with pytest.raises(Fenced) as caught:
            await producer.flush()
        assert caught.value.epoch == 9
        with pytest.raises(Fenced):
            producer.send(message="3")
        with pytest.raises(Fenced):
            await producer.close()
        assert len(node.store.all_rows("pay")) == 1


async def test_rows_lost_in_a_damaged_buffer_are_declared_as_skipped(tmp_path: Path) -> None:
    """ackTill passes the gap, and the server knows why."""
    async with FakeNode() as node:
        path = tmp_path / "b"
        node.gate = answer_with(503, {})
        async with Producer([node.url], "pay", path, close_timeout_seconds=0.05) as producer:
            for number in range(3):  # each in a write of its own: damage to one takes no other
                producer.send(message=str(number))
                name = b'{"seq":%d' % (number + 1)
                await asyncio.to_thread(eventually, lambda name=name: name in path.read_bytes())
        data = bytearray(path.read_bytes())
        data[data.index(b'{"seq":2') + 3] ^= 1
        path.write_bytes(data)
        node.gate = None

        async with Producer([node.url], "pay", path) as producer:
            await producer.flush()
            assert producer.ack_till == 3
        assert next(iter(node.store.skipped.values())) == {2: "lost in a damaged buffer"}
        assert [row["message"] for row in node.store.all_rows("pay")] == ["0", "2"]


async def test_several_requests_in_flight_keep_every_row(tmp_path: Path) -> None:
    """Out of order and with faults in between: each row once."""
    async with FakeNode() as node:
        node.faults.extend([store_then_cut, answer_with(500, {}), cut])
        async with Producer(
            [node.url], "pay", tmp_path / "b", batch_rows=10, max_in_flight=4
        ) as producer:
            for number in range(500):
                producer.send(message=str(number))
            await producer.flush()
            assert producer.ack_till == 500
        messages = [int(row["message"]) for row in node.store.all_rows("pay")]
    assert messages == list(range(500))


async def test_rows_are_sent_in_batches() -> None:
    """At most `batch_rows` a request, and company for a lone row within the linger time."""
    async with FakeNode() as node:
        async with Producer([node.url], "pay", batch_rows=100, linger_seconds=0.2) as producer:
            for number in range(250):
                producer.send(message=str(number))
                if number % 50 == 0:
                    await asyncio.sleep(0)
            await producer.flush()
        assert [len(rows_of(body)) for body in node.bodies] == [100, 100, 50]
        first = json.loads(node.bodies[0])
        assert set(first) == {"service", "producer", "epoch", "logs"}


async def test_a_start_that_is_cancelled_gives_the_file_back(tmp_path: Path) -> None:
    """The buffer opens in a thread that cannot be cancelled; it is closed when it is done."""
    starting = asyncio.create_task(Producer(["h:1"], "pay", tmp_path / "b").__aenter__())
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await asyncio.sleep(0.2)
    async with Producer(["h:1"], "pay", tmp_path / "b", close_timeout_seconds=0):
        pass


async def test_wrong_arguments_are_refused_at_once() -> None:
    """Before anything is opened."""
    wrongs: list[dict[str, Any]] = [
        {"batch_rows": 0},
        {"batch_rows": 50_001},
        {"max_in_flight": 0},
        {"ack": "two"},
        {"producer": "x" * 129},
    ]
    for wrong in wrongs:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Producer(["h:1"], "pay", **wrong)
    with pytest.raises(ValueError, match="server"):
        Producer([], "pay")
