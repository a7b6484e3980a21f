"""The examples in the client's README run as they stand, against a fake cluster."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.unit.client.fake_query import FakeQueryNode
from tests.unit.client.fake_server import FakeNode
from tests.unit.client.test_sync import Background

README = Path(__file__).parents[3] / "client" / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


class WholeNode(FakeNode):
    """Takes rows, and answers questions with fixed ones."""

    def __init__(self) -> None:
        super().__init__()
        self._query = FakeQueryNode([{"timestamp": "2026-11-21T00:00:00Z", "message": "declined"}])
        self.app.router.add_get("/query", self._ask)

    async def _ask(self, request: web.Request) -> web.StreamResponse:
        return await self._query.serve(request)


@pytest.fixture
def node() -> Iterator[WholeNode]:
    background = Background()
    yield background.start(WholeNode())
    background.stop()


@pytest.fixture
def _clean_logging() -> Iterator[None]:
    root = logging.getLogger()
    before = list(root.handlers)
    yield
    for handler in root.handlers[:]:
        if handler not in before:
            root.removeHandler(handler)
            handler.close()


@pytest.mark.usefixtures("_clean_logging")
@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_run(
    example: str, node: WholeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the address is changed."""
    monkeypatch.chdir(tmp_path)
    code = example.replace("http://127.0.0.1:7171", node.url)
    assert code != example

    exec(compile(code, str(README), "exec"), {"__name__": "example"})

    for handler in logging.getLogger().handlers:
        if type(handler).__name__ == "LogHandler":
            handler.flush()
    if "send(" in example or "LogHandler" in example:
        assert len(node.store.all_rows("payments")) == 1


def test_there_are_examples() -> None:
    """An empty README must not pass."""
    assert len(EXAMPLES) == 4
