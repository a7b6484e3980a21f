"""The fields of a sample."""

import pytest

from query.fields import plan_exact, plan_fields, sampled_fields
from records.errors import InvalidRequest
from tests.support.fake_store import table_of
from tests.unit.query.helpers import NOW, row


def test_fields_with_types_and_counts() -> None:
    """Columns and keys of attributes, counted where they are not null; helpers are not fields."""
    rows = [
        row(1, x=1, ratio=1.5, flag=True, attributes='{"deep":{"a":1},"color":"red"}'),
        row(2, x=2, timestamp_ns=5, attributes='{"color":7,"none":null}'),
        row(3),
    ]
    table = table_of([{"_run": b"a" * 16, "_number": i, **one} for i, one in enumerate(rows)])

    found = {one["name"]: (one["type"], one["rows"]) for one in sampled_fields(table)}

    assert found == {
        "timestamp": ("time", 3),
        "service": ("text", 3),
        "level": ("text", 3),
        "message": ("text", 3),
        "x": ("integer", 2),
        "ratio": ("number", 1),
        "flag": ("boolean", 1),
        "deep": ("object", 1),
        "color": ("mixed", 2),
    }


def test_plans() -> None:
    """The sample's size is bounded; exact counts are one fold."""
    plan, exact = plan_fields([("sample", "5"), ("exact", "true"), ("level", "error")], NOW)

    assert exact
    assert plan.scan.limit == 5
    fold = plan_exact(plan, ["x", "y"]).scan.fold
    assert fold is not None
    assert [(one.function, one.column) for one in fold.aggregates] == [
        ("count", ""),
        ("count", "x"),
        ("count", "y"),
    ]
    with pytest.raises(InvalidRequest):
        plan_fields([("sample", "50001")], NOW)
