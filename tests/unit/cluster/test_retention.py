"""From rules and a clock to watermarks: pure; and what the replicated state accepts of them."""

import asyncio
from typing import Any

import pytest

from cluster.consensus import CommandRefused, NotCommitted
from cluster.retention import FOREVER, due_marks, retention_of, rules_body, seconds_of
from cluster.retention_keeper import RetentionKeeper, RetentionSettings
from cluster.state import ClusterState, Versioned
from cluster.state_ops import DELETES_MAX, OPS, RETENTION_RULES, below_watermarks
from cluster.state_types import CommandError
from records.errors import InvalidRequest
from records.timestamps import MIN_MICROS
from runtime.metrics import Metrics

DAY = 86_400
SECOND = 1_000_000
NOW = 1_000 * DAY * SECOND + 59 * SECOND
MINUTE = 60 * SECOND


def test_watermarks_are_whole_steps_behind_the_clock() -> None:
    """Seven days before now, rounded down to the minute."""
    assert due_marks({("t", ""): 7 * DAY}, {}, NOW, MINUTE) == [("t", "", 993 * DAY * SECOND)]


def test_nothing_is_due_that_would_not_move_forward() -> None:
    """Neither within a step, nor when a clock or a longer rule points back."""
    marks = {("t", ""): 993 * DAY * SECOND}

    assert due_marks({("t", ""): 7 * DAY}, marks, NOW, MINUTE) == []
    assert due_marks({("t", ""): 7 * DAY}, marks, NOW - DAY * SECOND, MINUTE) == []
    assert due_marks({("t", ""): 30 * DAY}, marks, NOW, MINUTE) == []


def test_a_service_is_exempt_before_the_default_moves() -> None:
    """In this order; one that is kept for ever gets a watermark that hides nothing."""
    rules = {("t", ""): DAY, ("t", "audit"): 365 * DAY, ("t", "books"): FOREVER}

    assert due_marks(rules, {}, NOW, MINUTE) == [
        ("t", "audit", 635 * DAY * SECOND),
        ("t", "books", 0),
        ("t", "", 999 * DAY * SECOND),
    ]


def test_without_its_rule_a_service_follows_the_default() -> None:
    """Its watermark stays, and moves with the others; without a default it stands still."""
    marks = {("t", "audit"): 5}

    assert due_marks({("t", ""): DAY}, marks, NOW, MINUTE)[0] == ("t", "audit", 999 * DAY * SECOND)
    assert due_marks({}, marks, NOW, MINUTE) == []


@pytest.mark.parametrize("value", [0, -1, True, "7", "never", 1e9, float("nan"), [7]])
def test_bad_numbers_of_days_are_refused(value: Any) -> None:
    """Nothing is hidden for a slip of the pen."""
    with pytest.raises(InvalidRequest):
        seconds_of(value)


def test_days_become_seconds() -> None:
    """A part of a day as well; null drops the rule."""
    assert [seconds_of(one) for one in (7, 0.5, "forever", None)] == [
        7 * DAY,
        DAY // 2,
        FOREVER,
        None,
    ]


def test_rules_are_bounded() -> None:
    """They are part of the replicated state."""
    with pytest.raises(InvalidRequest):
        rules_body({("t", str(n)): 1 for n in range(1001)})


def apply(state: ClusterState, op: str, **args: Any) -> ClusterState:
    """The state after a command; raises CommandError."""
    return OPS[op](state, args)[0]


def test_a_service_gets_its_own_watermark_where_the_default_is() -> None:
    """A rule that keeps it longer, made late, brings nothing back."""
    state = apply(ClusterState(), "SetWatermark", tenant="t", service="", t=100)
    state = apply(state, "SetWatermark", tenant="t", service="audit", t=10)

    assert state.watermarks == {("t", ""): 100, ("t", "audit"): 100}


def test_a_watermark_from_old_rules_is_refused() -> None:
    """Whoever leads no more cannot hide what a newer rule keeps."""
    body = rules_body({("t", ""): DAY})
    state = ClusterState(schemas={RETENTION_RULES: Versioned(2, body)})

    with pytest.raises(CommandError):
        apply(state, "SetWatermark", tenant="t", service="", t=5, rules_version=1)
    assert apply(state, "SetWatermark", tenant="t", service="", t=5, rules_version=2).watermarks


def predicate(*services: str, end: int = 50) -> dict[str, Any]:
    """A delete's predicate."""
    return {
        "tenant": "t",
        "services": list(services),
        "start": 0,
        "end": end,
        "received_until": 9,
        "filter": ["true"],
    }


def test_deletes_are_bounded() -> None:
    """Each scan looks at each of them."""
    state = ClusterState(deletes={str(n): predicate("a") for n in range(DELETES_MAX)})

    with pytest.raises(CommandError):
        apply(state, "AddDelete", id="more", predicate=predicate("a"))
    assert apply(state, "AddDelete", id="0", predicate=predicate("a")) == state


@pytest.mark.parametrize(
    ("marks", "services", "below"),
    [
        ({("t", ""): 50}, ("a",), True),
        ({("t", ""): 49}, ("a",), False),
        ({("t", ""): 50, ("t", "a"): 49}, ("a",), False),
        ({("t", "a"): 50}, ("a",), True),
        ({("t", "a"): 50}, ("a", "b"), False),
        ({("t", "a"): 50}, (), False),
        ({("t", ""): 50, ("t", "a"): 49}, (), False),
        ({("t", ""): 50, ("t", "a"): 50}, (), True),
        ({}, ("a",), False),
    ],
)
def test_a_delete_is_forgotten_where_watermarks_hide_its_rows(
    marks: dict, services: tuple[str, ...], below: bool
) -> None:
    """Of each of its services; else it needs the proof of every storage member."""
    state = ClusterState(watermarks=marks, deletes={"d": predicate(*services)})

    assert below_watermarks(state, state.deletes["d"]) == below


def test_a_delete_that_cannot_be_read_is_no_delete_that_hides_nothing() -> None:
    """Retention as a whole is refused, so the node goes on with what it knew."""
    with pytest.raises(InvalidRequest):
        retention_of(ClusterState(deletes={"d": {"tenant": "t"}}))


class Log:
    """A consensus of one that applies at once; `refuse`: the commands that do not come through."""

    def __init__(self, state: ClusterState, leads: bool = True, refuse: int = 0) -> None:
        self.state, self.leads, self.refuse = state, leads, refuse
        self.proposed: list[tuple[str, dict]] = []

    def is_leader_hint(self) -> bool:
        return self.leads

    def snapshot(self) -> ClusterState:
        return self.state

    async def propose(self, op: str, args: dict, _: float = 2.0) -> None:
        self.proposed.append((op, args))
        if self.refuse:
            self.refuse -= 1
            raise CommandRefused("MISMATCH", "rules have changed")
        self.state = apply(self.state, op, **args)


def stepped(log: Log, now: int | None = NOW) -> Log:
    """After one step of the keeper."""
    keeper = RetentionKeeper(log, lambda: now, RetentionSettings(), Metrics())  # type: ignore[arg-type]
    asyncio.run(keeper.step())
    return log


RULES = ClusterState(
    schemas={RETENTION_RULES: Versioned(1, rules_body({("t", ""): DAY, ("t", "audit"): 9 * DAY}))}
)


def test_the_leader_moves_watermarks() -> None:
    """Twice at the same time is once."""
    log = stepped(stepped(Log(RULES)))

    assert log.state.watermarks == {
        ("t", ""): 999 * DAY * SECOND,
        ("t", "audit"): 991 * DAY * SECOND,
    }
    assert len(log.proposed) == 2


@pytest.mark.parametrize(("leads", "now"), [(False, NOW), (True, None)])
def test_nothing_moves_without_the_lead_or_a_median(leads: bool, now: int | None) -> None:
    """A node that hears of no majority does not know what time it is."""
    assert stepped(Log(RULES, leads), now).proposed == []


def test_the_default_waits_for_the_services_that_are_exempt() -> None:
    """If a service's watermark was not committed, the default's would hide its rows."""
    log = stepped(Log(RULES, refuse=1))

    assert [args["service"] for _, args in log.proposed] == ["audit"]
    assert log.state.watermarks == {}


def test_a_moot_delete_is_forgotten() -> None:
    """Watermarks have passed all it can hide."""
    state = ClusterState(
        watermarks={("t", ""): 60}, deletes={"d": predicate("a"), "e": predicate("a", end=90)}
    )

    assert set(stepped(Log(state)).state.deletes) == {"e"}


def test_a_delete_of_rows_from_before_1970_waits_for_a_watermark_as_any_other() -> None:
    """Without one, or with one of 0 (kept for ever), nothing else hides its rows."""
    early = predicate("a", end=-50)

    assert not below_watermarks(ClusterState(), early)
    assert not below_watermarks(ClusterState(watermarks={("t", "a"): 0}), early)
    assert below_watermarks(ClusterState(watermarks={("t", "a"): 1}), early)


def test_what_is_kept_for_ever_is_kept_from_before_1970_too() -> None:
    """Its watermark is 0 in the replicated state, which knows no smaller one."""
    state = ClusterState(watermarks={("t", ""): 100, ("t", "books"): 0})

    assert retention_of(state).mark("t", "books") == MIN_MICROS
    assert retention_of(state).mark("t", "other") == 100


def test_a_refused_watermark_stops_its_own_tenant_alone() -> None:
    """The default of that tenant waits; the rows of others are not kept for its sake."""
    rules = {("a" * 300, ""): DAY, ("b", "audit"): DAY, ("b", ""): DAY}
    state = ClusterState(schemas={RETENTION_RULES: Versioned(1, rules_body(rules))})

    class Real(Log):
        async def propose(self, op: str, args: dict, _: float = 2.0) -> None:
            try:
                await super().propose(op, args)
            except CommandError as error:
                raise CommandRefused(error.code, error.text) from error

    assert set(stepped(Real(state)).state.watermarks) == {("b", "audit"), ("b", "")}


def test_nothing_more_is_proposed_while_nothing_is_committed() -> None:
    """Else each of a thousand rules would wait for its own time-out."""

    class Silent(Log):
        async def propose(self, op: str, args: dict, _: float = 2.0) -> None:
            self.proposed.append((op, args))
            raise NotCommitted("no leader")

    assert len(stepped(Silent(RULES)).proposed) == 1
