"""The tables of the shop: what a request logs when all is well, and when a span fails."""

from node.simulate.shop import FLOWS, SERVICES
from node.simulate.variants import LEVELS, tables

ERROR = LEVELS.index("error")


def test_the_shop_has_a_dozen_services() -> None:
    """The demo promises twelve."""
    assert len(SERVICES) == 12


def test_each_flow_is_there_whole_and_broken_at_each_span() -> None:
    """A flow of k spans gives k + 1 variants; the whole ones hold no error."""
    table = tables()

    assert len(table.first) == sum(1 + len(flow.spans) for flow in FLOWS)
    for variant, failed in enumerate(table.failed):
        slots = slice(table.first[variant], table.first[variant] + table.length[variant])
        assert bool((table.level[slots] == ERROR).any()) == bool(failed)


def test_a_failing_span_fails_each_caller_up_to_the_root() -> None:
    """In checkout, payments (span 3, called by orders, span 1, called by the gateway, span 0) fails.

    Errors come from inside out, and what would have come after the failure is absent: no shipping
    label, no mail.
    """
    table = tables()
    checkout = next(i for i, flow in enumerate(FLOWS) if flow.name == "checkout")
    first = next(i for i, flow in enumerate(table.flow) if flow == checkout)
    variant = first + 1 + 3

    slots = range(table.first[variant], table.first[variant] + table.length[variant])
    errors = [int(table.span[slot]) for slot in slots if table.level[slot] == ERROR]
    services = {SERVICES[table.service[slot]] for slot in slots}

    assert errors == [3, 1, 0]
    assert services == {"gateway", "orders", "inventory", "payments"}
