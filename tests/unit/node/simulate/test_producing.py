"""`simulate --buffers`: the shop through producers, against a fake server."""

import asyncio
import json
from pathlib import Path

import pytest

from node.cli import parse
from node.cli_errors import CliError
from node.commands import simulating
from node.simulate import producing
from tests.support.write_path import until
from tests.unit.client.fake_server import FakeNode

MAKE = {"seed": 7, "start_micros": 0, "rows_per_second": 1000.0, "burst": False, "kind": "json"}


async def test_each_service_is_a_producer_that_answers_replay_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """200 rows, all numbered and stored once; then row 1 of each service is asked for again."""
    monkeypatch.setattr(producing, "POLL_SECONDS", 0.05)
    async with FakeNode() as node:
        words = (
            f"simulate --rows 200 --to cluster --buffers {tmp_path}/b --json --server {node.url}"
        )
        options = parse(words.split())
        options.hold = 60.0
        running = asyncio.create_task(producing.produce(options, {**MAKE, "rows": 200}, False))
        await until(lambda: sum(map(len, node.store.rows.values())) == 200)
        node.store.asked["ask-1"] = {1}
        await until(lambda: not node.store.asked["ask-1"])
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

        options.hold = 0.0
        assert await producing.produce(options, {**MAKE, "rows": 200}, False) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["rows"], told["producers"]) == (200, len(node.store.rows))
        assert sum(len(held) for held in node.store.rows.values()) == 400
        for held in node.store.rows.values():
            assert sorted(held) == list(range(1, len(held) + 1))


@pytest.mark.parametrize(
    "text", ["--buffers b", "--buffers b --to cluster --format csv", "--hold 1 --to cluster"]
)
def test_what_does_not_fit_together_is_a_usage_error(text: str) -> None:
    """Exit code 2."""
    with pytest.raises(CliError) as caught:
        simulating.run(parse(f"simulate --rows 1 {text}".split()))
    assert caught.value.code == 2
