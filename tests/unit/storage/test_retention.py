"""What is hidden, as a function of watermarks, deletes and what an entry says of itself."""

import pytest

from records.errors import InvalidRequest
from records.timestamps import MICROS_PER_HOUR, MIN_MICROS, TimeRange
from storage.entry_table import EntryTable
from storage.retention import Delete, Retention, expired_entries
from tests.unit.storage.samples import SECOND, T0, header_of, plain, sequenced

HOUR = MICROS_PER_HOUR
DELETE = Delete("d1", "default", TimeRange(T0, T0 + HOUR), T0 + 5, ("pay",), ("word", "card"))


def test_a_service_has_its_own_watermark_or_the_default() -> None:
    """The service "" speaks for all services without one."""
    retention = Retention(1, {("t", ""): 100, ("t", "audit"): 10})

    assert retention.mark("t", "pay") == 100
    assert retention.mark("t", "audit") == 10
    assert retention.mark("other", "pay") == MIN_MICROS


def test_an_entry_of_any_service_waits_for_the_lowest_watermark() -> None:
    """An unsequenced entry may hold rows of audit, so it stays until these are gone as well."""
    retention = Retention(1, {("t", ""): 100, ("t", "audit"): 10})

    assert retention.floor("t") == 10
    assert retention.floor("t", "pay") == 100


def test_without_a_default_no_entry_of_any_service_goes() -> None:
    """Rows of services without a watermark are kept for ever, so the entries they may be in are."""
    retention = Retention(1, {("t", "audit"): 10})

    assert retention.floor("t") == MIN_MICROS
    assert retention.floor("t", "audit") == 10


def test_a_repeat_goes_before_what_hides_it() -> None:
    """An entry that shows waits an hour longer: its repeat, received up to an hour later, goes first."""
    table = EntryTable()
    shown, repeat = plain(0), plain(3000, text="again")
    for index, entry in enumerate((shown, repeat)):
        table.add(header_of(entry, index), 0, index)
    table.rows["flags"][1] |= 8  # hidden by its previous

    assert expired_entries(Retention(1, {("default", ""): T0 + HOUR}), table).tolist() == [1]
    later = Retention(1, {("default", ""): T0 + HOUR + SECOND})
    assert expired_entries(later, table).tolist() == [0, 1]


def test_a_producers_entry_goes_by_its_service() -> None:
    """Its header names the service, so it need not wait for others."""
    table = EntryTable()
    table.add(header_of(sequenced(1, 3), 0), 0, 0)
    table.add(header_of(plain(1, 3), 3), 0, 1)
    marks = {("default", ""): 0, ("default", "pay"): T0 + 2 * HOUR}

    assert expired_entries(Retention(1, marks), table).tolist() == [0]
    assert expired_entries(Retention(1, {}), table).tolist() == []


def test_a_delete_is_the_same_after_the_wire() -> None:
    """As the replicated state keeps it: plain values, tuples as lists."""
    body = DELETE.to_plain()
    body["filter"] = list(body["filter"])

    assert Delete.from_plain("d1", body) == DELETE


@pytest.mark.parametrize("missing", ["tenant", "start", "received_until", "filter"])
def test_a_delete_that_lacks_a_field_is_refused(missing: str) -> None:
    """It would hide other rows than were meant."""
    body = DELETE.to_plain()
    del body[missing]

    with pytest.raises(InvalidRequest):
        Delete.from_plain("d1", body)


def test_time_that_is_hidden_for_all_services_asked_for_is_left_out() -> None:
    """The range of a scan begins at the lowest watermark of its services."""
    retention = Retention(1, {("default", ""): 100, ("default", "audit"): 10})

    assert retention.start_of("default", ("pay", "web")) == 100
    assert retention.start_of("default", ("pay", "audit")) == 10
    assert retention.start_of("default", ()) == 10
