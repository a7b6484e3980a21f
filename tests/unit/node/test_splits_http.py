"""POST /cluster/splits: who loses to another looks again, and no error claims more than is sure."""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.consensus import CommandRefused, NotCommitted
from cluster.state import ClusterState
from node.splits_http import SplitsApi
from records.errors import InvalidRequest, QuorumlogError
from runtime.clock import SystemClock
from tests.unit.cluster.test_state import Log

KEY = ("default", "hot")


class Managers:
    """The replicated state; `between` is called before each proposal, `lost` fails barriers after it."""

    def __init__(self, *between: Callable[["Managers"], Any], lost: bool = False) -> None:
        self.log = Log(ClusterState(shard_count=32))
        self.between, self.lost, self.proposed = list(between), lost, 0

    def split(self, factor: int) -> list[Any]:
        number = len(self.log.state.splits.get(KEY, (0,))) - 1
        args = {"factor": factor, "at": 1, "expected_generation": number}
        return self.log.do("SplitService", tenant="default", service="hot", **args)

    async def barrier(self) -> ClusterState:
        if self.lost and self.proposed:
            raise NotCommitted("no leader")
        return self.log.state

    async def propose(self, op: str, args: dict[str, Any]) -> Any:
        if self.between:
            self.between.pop(0)(self)
        self.proposed += 1
        kind, *rest = self.log.do(op, **args)
        if kind == "err":
            raise CommandRefused(*rest)
        return rest[0]


async def post(managers: Managers, over: int) -> dict[str, Any]:
    """The answer to `{"service": "hot", "over": over}`."""

    class Body:
        async def iter_chunked(self, _: int) -> Any:
            yield json.dumps({"service": "hot", "over": over}).encode()

    views: Any = SimpleNamespace(current=lambda: SimpleNamespace(state=managers.log.state))
    request: Any = SimpleNamespace(content=Body(), headers={})
    consensus: Any = managers
    answer = await SplitsApi(views, consensus, SystemClock()).split(request)
    assert isinstance(answer.body, bytes)
    return json.loads(answer.body)


async def test_the_same_again_changes_nothing() -> None:
    """So an answer that was lost is asked for again."""
    managers = Managers()
    made = await post(managers, 4)
    assert (made["was"], made["over"], made["generation"]) == (1, 4, 1)
    again = await post(managers, 4)
    assert (again["was"], again["over"], again["generation"]) == (4, 4, 1)
    assert managers.proposed == 1


@pytest.mark.parametrize(("theirs", "was", "generation"), [(2, 2, 2), (8, 8, 1)])
async def test_of_two_splits_at_once_the_later_one_goes_on_from_the_other(
    theirs: int, was: int, generation: int
) -> None:
    """To more shards than the other: a generation more. To as many: there is nothing to do."""
    managers = Managers(lambda log: log.split(theirs))
    made = await post(managers, 8)
    assert (made["was"], made["over"], made["generation"]) == (was, 8, generation)


async def test_a_split_to_fewer_shards_than_the_other_made_is_refused() -> None:
    """By what holds then."""
    managers = Managers(lambda log: log.split(16))
    with pytest.raises(InvalidRequest, match="over 16 shards already") as caught:
        await post(managers, 8)
    assert caught.value.is_definite


async def test_a_further_split_right_behind_it_is_no_error() -> None:
    """The answer has what is there by then, and what was there before."""
    managers = Managers()
    propose = managers.propose

    async def overtaken(op: str, args: dict[str, Any]) -> Any:
        value = await propose(op, args)
        managers.split(16)
        return value

    managers.propose = overtaken  # type: ignore[method-assign]
    made = await post(managers, 4)
    assert (made["was"], made["over"], made["generation"]) == (1, 16, 2)


async def test_it_is_not_definite_that_nothing_was_split_once_the_command_was_committed() -> None:
    """The managers fall apart before the new state can be told."""
    managers = Managers(lost=True)
    with pytest.raises(QuorumlogError) as caught:
        await post(managers, 4)
    assert len(managers.log.state.splits[KEY]) == 2
    assert caught.value.to_dict()["definite"] is False
