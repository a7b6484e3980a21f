"""With which receive time a delete ends: what the owners hold, our clock, and no clock that is far ahead."""

from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from cluster.state import ClusterState
from node.retention_http import AHEAD_SECONDS, RetentionApi, _pairs
from records.errors import ConnectionLost, InvalidRequest, NotFound, NotReady
from records.timestamps import MAX_MICROS, TimeRange
from runtime.entropy import SeededEntropy
from storage.service import Delete

NOW = 1_000_000_000_000
SECOND = 1_000_000


class View:
    """Three storage nodes that own everything."""

    def __init__(self, w_floor: int = 0) -> None:
        self.state = ClusterState(w_floor=w_floor)

    def storage_nodes(self) -> tuple[str, ...]:
        return ("n1", "n2", "n3")

    def owners(self, shard: int) -> tuple[str, ...]:
        return ("n1", "n2", "n3")


class Peers:
    """Nodes that tell the largest receive time they hold; None is down."""

    def __init__(self, *told: int | None, latest: int | None = None) -> None:
        self._told: dict[str, int | None] = dict(zip(("n1", "n2", "n3"), told, strict=True))
        self._more = {} if latest is None else {"latest": latest}

    async def call(self, node: str, *_: Any) -> tuple[dict[str, Any], bytes]:
        received = self._told[node]
        if received is None:
            raise ConnectionLost("down")
        return {"index": 1, "left": {}, "received_max": received, **self._more}, b""


class Clock:
    """It is always the same time."""

    def wall_micros(self) -> int:
        return NOW

    def monotonic(self) -> float:
        return 0.0


async def ends(
    *told: int | None, latest: int | None = None, w_floor: int = 0
) -> tuple[int, int, list[str]]:
    """The ends of a delete with these answers."""
    nothing: Any = None
    peers: Any = Peers(*told, latest=latest)
    clock: Any = Clock()
    view: Any = View(w_floor)
    api = RetentionApi("q", nothing, nothing, peers, clock, nothing, None, None)
    return await api._ends(view, (0, 7))


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ((5, 6, 7), NOW),
        ((5, NOW + 3 * SECOND, 7), NOW + 3 * SECOND),
        ((None, NOW + 3 * SECOND, 7), NOW + 3 * SECOND),
        ((5, NOW + AHEAD_SECONDS * SECOND, 7), NOW + AHEAD_SECONDS * SECOND),
        ((5, NOW + AHEAD_SECONDS * SECOND + 1, 7), NOW),
    ],
)
async def test_a_delete_ends_with_what_is_there(
    told: tuple[int | None, ...], expected: int
) -> None:
    """A row that was received in a year hides no rows of the months to come."""
    until, _, ahead = await ends(*told)

    assert until == expected
    assert bool(ahead) == any(one and one > NOW + AHEAD_SECONDS * SECOND for one in told)


async def test_a_delete_needs_owners_that_have_every_acknowledged_row() -> None:
    """N - W + 1 of each shard: one of two lost owners may have had the row alone with the third."""
    with pytest.raises(NotReady):
        await ends(None, None, 7)


async def test_a_delete_needs_all_owners_while_rows_may_be_on_one_alone() -> None:
    """W was 1 once, and owners have not been filled up since."""
    assert (await ends(None, 5, 7))[0] == NOW
    with pytest.raises(NotReady, match="3 of its owners"):
        await ends(None, 5, 7, w_floor=1)


@pytest.mark.parametrize(
    ("latest", "end"),
    [(5, NOW + 1), (NOW + 9, NOW + 10), (MAX_MICROS, MAX_MICROS), (None, MAX_MICROS)],
)
async def test_a_delete_without_an_end_ends_after_the_latest_row(
    latest: int | None, end: int
) -> None:
    """So that watermarks pass it, and it is forgotten; not if a node of an older build does not tell."""
    assert (await ends(5, 6, 7, latest=latest))[1] == end


async def test_a_delete_is_told_to_its_own_tenant_alone() -> None:
    """What it looks for may be a secret."""
    made = Delete("d", "mine", TimeRange(), NOW)
    view: Any = View()
    view.state = ClusterState(deletes={"d": made.to_plain()})

    assert RetentionApi._delete_of("mine", "d", view) == made
    for tenant, name in (("other", "d"), ("mine", "e")):
        with pytest.raises(NotFound):
            RetentionApi._delete_of(tenant, name, view)


@pytest.mark.parametrize("body", [{"service": 7}, {"service": "a", "level": "x"}, {"limit": "5"}])
def test_a_delete_has_no_other_parameters(body: dict[str, Any]) -> None:
    """What a question may have beside, a delete would not heed."""
    with pytest.raises(InvalidRequest):
        _pairs(body)


class Asked:
    """A request to set a rule, of a tenant."""

    def __init__(self, tenant: str) -> None:
        self.headers = {"X-Scope-OrgID": tenant}


@pytest.mark.parametrize("tenant", ["a" * 129, "a/b", "a b", "\udc80"])
async def test_no_rule_is_made_for_a_name_that_is_no_tenant(
    tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its watermark would be refused for ever."""
    nothing: Any = None

    async def body(_: Any) -> dict[str, Any]:
        return {"keep_days": 7}

    class Views:
        def current(self) -> Any:
            return self

        state = ClusterState()

    views: Any = Views()
    monkeypatch.setattr("node.retention_http.json_body", body)
    api = RetentionApi("q", views, nothing, nothing, nothing, nothing, None, None)
    request: Any = Asked(tenant)

    with pytest.raises(InvalidRequest, match="tenant"):
        await api.set_rule(request)


class Reads:
    """A reader whose one answer comes as a split is being told: the services are on shard 7 as well then."""

    def __init__(self, complete: bool = True) -> None:
        self.views = [(0,), (0, 7)]
        self.asked: list[int] = []
        self.proposed: list[str] = []
        self._complete = complete

    def current(self) -> Any:
        shards, reads = self.views[0], self

        class Now(View):
            shards_read = shards

            def owners(self, shard: int) -> tuple[str, ...]:
                reads.asked.append(shard)
                return super().owners(shard)

        return Now()

    def deadline(self, _: Any) -> None:
        return None

    def shards(self, _: Any, view: Any) -> tuple[int, ...]:
        return view.shards_read

    async def fold(self, *_: Any) -> Any:
        del self.views[0]
        table = pa.table({"count": [3]})
        return SimpleNamespace(complete=self._complete, missing=["7"], table=table)

    async def propose(self, operation: str, _: Any) -> None:
        self.proposed.append(operation)

    def api(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        async def body(_: Any) -> dict[str, Any]:
            return {"service": "shop"}

        monkeypatch.setattr("node.retention_http.json_body", body)
        me: Any = self
        peers: Any = Peers(5, 6, 7)
        clock: Any = Clock()
        return RetentionApi("q", me, me, peers, clock, SeededEntropy(1), None, me)


async def test_a_delete_asks_the_owners_of_all_shards_that_its_question_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The read waits for a newer ring if it must. Owners of the shards of before it are not enough: rows of
    the others may be received later, and later times of theirs would end after the delete.
    """
    reads = Reads()
    request: Any = Asked("default")

    answer = await reads.api(monkeypatch).delete(request)

    assert (answer.status, reads.proposed) == (202, ["AddDelete"])
    assert reads.asked == [0, 7]


async def test_a_delete_is_not_made_of_a_partial_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that could not be counted might be hidden by what nobody has seen."""
    reads = Reads(complete=False)
    request: Any = Asked("default")

    with pytest.raises(NotReady, match="not all owners"):
        await reads.api(monkeypatch).delete(request)

    assert reads.proposed == []
