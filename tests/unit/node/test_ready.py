"""What /ready waits for."""

from types import SimpleNamespace
from typing import Any

import pytest

from node.node import Node


@pytest.mark.parametrize(
    ("registered", "members", "waits"),
    [
        (False, ("n1",), "registration"),
        (True, ("n1", "n4"), ""),
        (True, ("n1",), "removed for good"),
    ],
)
def test_who_is_no_member_is_not_ready(
    registered: bool, members: tuple[str, ...], waits: str
) -> None:
    """Also once it was removed: nothing should be sent there any more, and the reason is told."""
    view = SimpleNamespace(
        ready=True,
        shard_count=1,
        leader=lambda _: ("n1", 1),
        member=lambda node: node if node in members else None,
    )
    node: Any = SimpleNamespace(
        _registered=registered,
        settings=SimpleNamespace(node=SimpleNamespace(id="n4")),
        membership=SimpleNamespace(refused=""),
        views=SimpleNamespace(current=lambda: view),
    )

    missing = Node.not_ready(node)

    assert bool(missing) is bool(waits)
    assert waits in " ".join(missing)
