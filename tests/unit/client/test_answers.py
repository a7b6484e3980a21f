"""What an answer means: each status, each shape of error, each nonsense."""

from __future__ import annotations

import json

import pytest

from quorumlog import (
    Fenced,
    InvalidRequest,
    NotLeader,
    Overloaded,
    QuorumlogError,
    QuorumUnavailable,
    ServerFailed,
    TooLarge,
    Unauthorized,
)
from quorumlog.answers import error_from, read_ingest

PROTOCOL_ANSWER = (
    b'{"batchId":"01JD4Z0K6Q0000000000000001","ackTill":1,"missing":[2],"status":"partial",'
    b'"durable":"2/3","accepted":2,"duplicates":0,"rejectedCount":0,"rejected":[]}'
)


def test_the_answer_in_the_protocols_text() -> None:
    """Section 1's own example."""
    answer = read_ingest(200, {}, PROTOCOL_ANSWER)

    assert answer.ack_till == 1
    assert answer.missing == ((2, 2),)
    assert answer.durable == "2/3"
    assert (answer.accepted, answer.duplicates, answer.conflict) == (2, 0, False)


def test_ranges_win_over_the_truncated_list() -> None:
    """`missingRanges` is always whole; a truncated list alone is not to be believed."""
    whole = {"ackTill": 0, "missing": [1], "missingTruncated": True, "missingRanges": [[1, 5000]]}
    assert read_ingest(200, {}, json.dumps(whole).encode()).missing == ((1, 5000),)

    del whole["missingRanges"]
    with pytest.raises(ServerFailed):
        read_ingest(200, {}, json.dumps(whole).encode())


def test_a_conflict_is_an_answer() -> None:
    """409 conflict carries the ordinary answer, in either spelling of the error."""
    raw = json.loads(PROTOCOL_ANSWER)
    for error in ("conflict", {"code": "CONFLICT", "message": "x"}):
        raw["error"] = error
        assert read_ingest(409, {}, json.dumps(raw).encode()).conflict


def test_fenced_carries_the_newer_epoch() -> None:
    """In either spelling."""
    for body in ({"error": "fenced", "epoch": 2}, {"error": {"code": "FENCED", "epoch": 2}}):
        with pytest.raises(Fenced) as caught:
            read_ingest(409, {}, json.dumps(body).encode())
        assert caught.value.epoch == 2


@pytest.mark.parametrize(
    ("status", "body", "kind", "definite"),
    [
        (503, {"error": "not_enough_replicas", "retryAfterMs": 1500}, QuorumUnavailable, False),
        (503, {"error": {"code": "STOPPING", "definite": True}}, Overloaded, True),
        (429, {"error": "quota"}, Overloaded, True),
        (507, {"error": {"code": "DISK_FULL", "definite": False}}, Overloaded, False),
        (401, {}, Unauthorized, True),
        (403, {}, Unauthorized, True),
        (413, {"error": "too_large"}, TooLarge, True),
        (400, {"error": "bad_json", "reason": "x"}, InvalidRequest, True),
        (404, {}, InvalidRequest, True),
        (500, {}, ServerFailed, False),
        (502, {}, ServerFailed, False),
        (302, {}, ServerFailed, False),
        (409, {"error": "surprise"}, ServerFailed, False),
        (409, {"error": {"code": "STALE_RING_EPOCH"}}, NotLeader, True),
        (504, {"error": {"code": "DEADLINE_EXCEEDED"}}, ServerFailed, False),
    ],
)
def test_each_status_is_its_error(
    status: int, body: dict[str, object], kind: type[QuorumlogError], definite: bool
) -> None:
    """And says whether the write may exist."""
    error = error_from(status, {}, json.dumps(body).encode())

    assert type(error) is kind
    assert error.definite is definite


def test_the_longest_pause_asked_for_is_kept() -> None:
    """Header in seconds or as a date, body in milliseconds, 1 s if a 429 says nothing."""
    assert error_from(429, {"Retry-After": "2"}, b"{}").retry_after_seconds == 2
    assert error_from(503, {}, b'{"retryAfterMs":1500}').retry_after_seconds == 1.5
    both = error_from(503, {"Retry-After": "1"}, b'{"error":{"retry_after_ms":3000}}')
    assert both.retry_after_seconds == 3
    seconds = error_from(429, {}, b'{"error":{"retry_after_seconds":2.5}}')
    assert seconds.retry_after_seconds == 2.5
    assert error_from(429, {}, b"").retry_after_seconds == 1
    assert error_from(503, {}, b"").retry_after_seconds is None
    assert error_from(429, {"Retry-After": "soon"}, b"").retry_after_seconds == 1
    assert error_from(429, {"Retry-After": "99999"}, b"").retry_after_seconds == 60
    past = {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}
    assert error_from(503, past, b"").retry_after_seconds == 0


def test_not_leader_carries_the_hint() -> None:
    """Node, address, shard and both epochs."""
    leader = {"node": "b", "http": "h:1", "shard": 3, "shard_epoch": 9, "ring_epoch": 2}
    error = error_from(
        409, {}, json.dumps({"error": {"code": "NOT_LEADER", "leader": leader}}).encode()
    )

    assert isinstance(error, NotLeader)
    assert error.leader is not None
    assert (error.leader.http, error.leader.shard_epoch, error.leader.ring_epoch) == ("h:1", 9, 2)
    nobody = error_from(503, {}, b'{"error":{"code":"NOT_LEADER","leader":null}}')
    assert isinstance(nobody, NotLeader)
    assert nobody.leader is None


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"null", b'{"ackTill":"x"}', b"{}", b'{"ackTill":1,"missing":[[]]}'],
)
def test_an_unreadable_answer_is_in_doubt(body: bytes) -> None:
    """200 with nonsense says nothing about the rows: they must be sent again."""
    with pytest.raises(ServerFailed) as caught:
        read_ingest(200, {}, body)
    assert not caught.value.definite


def test_control_characters_do_not_reach_the_message() -> None:
    """Error texts end on terminals."""
    assert "\x1b" not in str(error_from(500, {}, b"\x1b[31mboom"))
