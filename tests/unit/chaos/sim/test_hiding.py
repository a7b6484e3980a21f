"""Which rows must not be seen, since when: the reckoning, against answers that break it."""

from types import SimpleNamespace
from typing import Any

from chaos.history import APPEND, FINAL, OK, READ, Head, History, Op
from chaos.sim.clock import WALL_MICROS
from chaos.sim.consensus import SimLog
from chaos.sim.corpus import SimCorpus, SimFacts
from chaos.sim.hiding import Hidden, check_watermarks
from cluster.retention import rules_body
from cluster.state_types import ClusterState, Versioned
from records.timestamps import MAX_MICROS, MIN_MICROS

SECOND = 1_000_000_000
#: p0 sends ten rows of "shop" in the first second; p1 as many of "pay".
SENT = (
    Op(0, "p0", APPEND, "a", 0, SECOND, OK, ((1, 10),), "", {"ack_till": 10, "epoch": 1}),
    Op(1, "p1", APPEND, "a", 0, SECOND, OK, ((1, 10),), "", {"ack_till": 10, "epoch": 1}),
)
CORPUS = SimCorpus(7, WALL_MICROS)
SERVICES = {"p0": "shop", "p1": "pay"}


def read(id: int, at: float, names: list[str], kind: str = READ) -> Op:
    """A complete read of all rows."""
    begin, end = int(at * SECOND), int((at + 0.1) * SECOND)
    resp = {"complete": True, "missing": [], "rows": [[one, "x"] for one in names]}
    return Op(id, "reader", kind, "a", begin, end, OK, (), "", resp)


def names(client: str, first: int = 1) -> list[str]:
    """Rows first..10 of a client."""
    return [f"{client}:{number}" for number in range(first, 11)]


def log_of(*states: tuple[float, dict[str, Any]]) -> Any:
    """An agreed log of these states at these times, in seconds."""
    known = [ClusterState(), *(ClusterState(**one) for _, one in states)]
    return SimpleNamespace(states=known, times=[0.0, *(at for at, _ in states)])


def hidden(log: SimLog, *reads: Op, more: tuple[Op, ...] = ()) -> Hidden:
    """The reckoning over a history; the operator asked between 2 s and 6 s."""
    head = Head("sim", 7, WALL_MICROS, ("a",), 0, 2, 2, SERVICES, ("p0", "p1"))
    facts = SimFacts(History(head, (*SENT, *more, *reads)))
    hider: Any = SimpleNamespace(asked=[(2.0, 6.0)])
    return Hidden(facts, log, CORPUS, hider, 0.0)


def deleting(service: str, **more: Any) -> dict[str, Any]:
    """A state with a delete of a service."""
    body = {"start": MIN_MICROS, "end": MAX_MICROS, "filter": ("eq", "service", service), **more}
    return {
        "deletes": {
            "one": {"services": [service], "received_until": 0, "tenant": "default", **body}
        }
    }


def test_rows_below_a_watermark_may_not_be_shown_by_who_knows_it() -> None:
    """A node that has not heard of it may; the other service is not touched."""
    base = CORPUS.row("p0", 1, "shop")["_micros"]
    found = hidden(log_of((5.0, {"watermarks": {("default", "shop"): base + 1}})))

    assert found.names == {"p0:1", "p0:2", "p0:3"}  # neighbours have the same time
    assert found.check([(9, "a", 1, names("p0", 4)), (9, "a", 0, names("p0"))]) == []
    ((name, text),) = found.check([(9, "a", 1, names("p0"))])
    assert name == "I7"
    assert "p0:1 and 2 more" in text


def test_rows_that_nothing_hid_yet_do_not_vanish() -> None:
    """A read that ended before the delete has them all; one that ended after it may lack its rows alone."""
    log = log_of((5.0, deleting("shop")))
    early, late = read(2, 4.0, names("p1")), read(3, 6.0, names("p1"))

    broken = hidden(log, early, late).check([])

    assert len(broken) == 10
    assert all(name == "I7" and "op 2" in text for name, text in broken)


def test_rows_sent_again_after_a_delete_may_show() -> None:
    """What was sent about then, or later, has a later receipt somewhere; what was not may not come back."""
    log = log_of((5.0, deleting("shop")))
    again = Op(2, "p0", APPEND, "a", 7 * SECOND, 8 * SECOND, OK, ((1, 3),), "", {"ack_till": 10})
    page = [(9, "b", 1, names("p0"))]

    ((_, text),) = hidden(log, more=(again,)).check(page)

    assert text.startswith("p0:4 and 6 more")


def test_a_delete_of_some_clients_times_hides_no_others() -> None:
    """Both ends of its time count, and its filter."""
    base = CORPUS.row("p0", 1, "shop")["_micros"]
    tree = ("and", ("eq", "service", "shop"), ("eq", "chaos_client", "p0"))
    found = hidden(log_of((5.0, deleting("shop", start=base, end=base + 1000, filter=tree))))

    assert found.names == {"p0:1", "p0:2", "p0:3"}


def test_hidden_rows_are_not_missed_by_the_other_checkers() -> None:
    """I1 and I4 ask for the rest alone."""
    found = hidden(log_of((5.0, deleting("shop"))), read(2, 7.0, names("p1"), FINAL))
    facts = SimFacts(found._facts.history, hidden=found.names)

    assert {row for row in facts.promised("", 1 << 62)} == {("p1", n) for n in range(1, 11)}


def test_a_watermark_ahead_of_a_majoritys_clocks_is_told() -> None:
    """One clock that is ahead allows nothing; the second one does."""
    rules = {"quorumlog.retention": Versioned(1, rules_body({("default", ""): 10}))}
    now = WALL_MICROS + 5_000_000
    log = log_of((5.0, {"schemas": rules, "watermarks": {("default", ""): now - 9_000_000}}))

    assert check_watermarks(log, [0.0, 1.0, 2.0]) == []
    ((name, _),) = check_watermarks(log, [0.0, 0.5, 3.0])
    assert name == "I13"
