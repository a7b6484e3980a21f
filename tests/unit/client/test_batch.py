"""What goes into a request, and which answers end its repetition."""

from __future__ import annotations

import json

import pytest

from quorumlog import Fenced, InvalidRequest, QuorumUnavailable, ServerFailed, TooLarge
from quorumlog.batch import batch_body, is_final_for_rows, read_epoch
from quorumlog.frames import Meta

META = Meta("päy", "p-1", 3, 1, 0)


def test_rows_go_out_byte_for_byte() -> None:
    """The envelope of the protocol's section 1 around the rows as they are."""
    rows = [b'{"seq":1,"message":"a"}', b'{"seq":2,  "message":"b"}']
    body = batch_body(META, rows, [])

    assert b",".join(rows) in body
    assert json.loads(body) == {
        "service": "päy",
        "producer": "p-1",
        "epoch": 3,
        "logs": [{"seq": 1, "message": "a"}, {"seq": 2, "message": "b"}],
    }


def test_skips_travel_with_or_without_rows() -> None:
    """`{from, to, reason}`."""
    body = json.loads(batch_body(META, [], [(4, 6, "lost"), (9, 9, "bad")]))

    assert body["logs"] == []
    assert body["skip"] == [
        {"from": 4, "to": 6, "reason": "lost"},
        {"from": 9, "to": 9, "reason": "bad"},
    ]


def test_only_what_is_about_the_rows_or_our_right_is_final() -> None:
    """A configuration error is repeated: an operator mends it, the rows wait."""
    assert is_final_for_rows(Fenced("x", epoch=2))
    assert is_final_for_rows(TooLarge("x"))
    assert is_final_for_rows(InvalidRequest("x", code="BAD_JSON"))
    assert not is_final_for_rows(InvalidRequest("x", code="BAD_SERVICE"))
    assert not is_final_for_rows(QuorumUnavailable("x"))


@pytest.mark.parametrize("body", [b"{}", b'{"epoch":0}', b'{"epoch":"2"}', b"nonsense"])
def test_an_epoch_must_be_one(body: bytes) -> None:
    """Anything else is in doubt: ask again."""
    with pytest.raises(ServerFailed):
        read_epoch(200, {}, body)
    assert read_epoch(200, {}, b'{"epoch":2}') == 2
