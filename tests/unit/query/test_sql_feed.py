"""Pages under one schema: what is learnt, what is null, when it turns out too narrow."""

import pyarrow as pa
import pytest

from query.sql_feed import Shape, Wider
from records.errors import InvalidRequest


def page(**columns: list[object]) -> pa.Table:
    """Rows as they come from a read."""
    rows = len(next(iter(columns.values())))
    keys = {
        "_run": pa.array([bytes(16)] * rows, pa.binary(16)),
        "_number": pa.array(range(rows), pa.int64()),
        "timestamp": pa.array(range(rows), pa.timestamp("us", tz="UTC")),
    }
    return pa.table({**keys, **{name: pa.array(values) for name, values in columns.items()}})


def rows(shape: Shape, table: pa.Table) -> list[dict[str, object]]:
    """The page as the engine gets it."""
    return pa.Table.from_batches(list(shape.batches(table)), shape.schema).to_pylist()


def test_columns_named_have_the_types_of_the_rows() -> None:
    """What no row has is null, and told; names the query defines itself are no fields."""
    shape = Shape(("service", "x", "gone", "alias"), False, {"alias"}, False)
    table = shape.learn(page(x=[1, None], y=["a", "b"]))

    assert shape.schema == pa.schema(
        [("service", pa.string()), ("x", pa.int64()), ("gone", pa.null())]
    )
    assert shape.absent == ["gone"]
    assert rows(shape, table) == [
        {"service": None, "x": 1, "gone": None}, {"service": None, "x": None, "gone": None},
    ]  # fmt: skip


def test_a_column_of_nulls_has_no_type_yet() -> None:
    """It must not make text of numbers that come later."""
    shape = Shape(("x",), False, set(), False)
    first = shape.learn(page(x=pa.array([None, None], pa.string()).to_pylist()))
    shape.learn(page(x=[1]))

    assert shape.schema.field("x").type == pa.int64()
    assert rows(shape, first) == [{"x": None}, {"x": None}]


def test_a_wider_type_begins_again() -> None:
    """Integers, then numbers, then text; each time the shape knows more."""
    shape = Shape(("x",), False, set(), False)
    table = shape.learn(page(x=[1]))
    kinds = [shape.schema.field("x").type]
    for values in ([1.5], ["a"]):
        with pytest.raises(Wider):
            shape.learn(page(x=values))
        shape.again()
        kinds.append(shape.schema.field("x").type)

    assert kinds == [pa.int64(), pa.float64(), pa.string()]
    assert rows(shape, table) == [{"x": "1"}]
    shape.learn(page(x=[2]))


def test_a_star_shows_columns_and_named_attributes() -> None:
    """The usual core columns, all fields with values; a named one is looked up in the attributes."""
    shape = Shape(("region", "x"), True, set(), True)
    table = shape.learn(page(x=[1, None], attributes=['{"region": "eu", "x": 5}', None]))

    names = shape.schema.names
    assert names[:3] == ["_id", "timestamp", "service"]
    assert "tenant" not in names
    assert names[-2:] == ["region", "x"] or names[-2:] == ["x", "region"]
    first = rows(shape, table)[0]
    assert (first["_id"], first["region"], first["x"]) == ("00" * 16 + "-0", "eu", 1)


def test_without_columns_there_are_still_rows() -> None:
    """`count(*)` needs one column."""
    shape = Shape((), False, set(), False)
    table = shape.learn(page(x=[1, 2, 3]))

    assert shape.schema.names == ["timestamp"]
    assert len(rows(shape, table)) == 3


def test_names_that_differ_in_case_alone_are_refused() -> None:
    """SQL would take the first for both."""
    shape = Shape(("userId", "userid"), False, set(), False)

    with pytest.raises(InvalidRequest, match="userId and userid"):
        _ = shape.schema


def test_large_pages_go_in_pieces() -> None:
    """Each about a megabyte."""
    shape = Shape(("x",), False, set(), False)
    table = shape.learn(page(x=["y" * 1000] * 5000))

    sizes = [batch.nbytes for batch in shape.batches(table)]
    assert len(sizes) >= 5
    assert max(sizes) < 1_200_000
