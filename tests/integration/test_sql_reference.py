"""POST /sql against a reference: random queries over random rows on real stores, pushed down and not."""

import math
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from query.plan import Parameters, plan_filters
from query.sql import SqlRunner
from records.errors import InvalidRequest
from runtime.metrics import Metrics
from tests.integration.test_query_storage import Trio
from tests.support.sql_reference import random_entries, random_query, reference
from tests.support.sql_wide import wide_query
from tests.unit.query.helpers import NOW

pytestmark = [pytest.mark.integration, pytest.mark.beside]
#: Of each kind: what can be pushed down in part, and joins, windows, sets, subqueries.
QUERIES_OF_A_SEED = 40


def plain(table: pa.Table) -> list[tuple[Any, ...]]:
    """Rows in an order of their own; floats rounded, as sums of floats depend on their order."""
    columns = [[_value(one) for one in column.to_pylist()] for column in _without_zones(table)]
    return sorted(zip(*columns, strict=True), key=repr)


def _without_zones(table: pa.Table) -> Iterator[pa.ChunkedArray]:
    for column in table.columns:
        yield column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column


def _value(one: Any) -> Any:
    if isinstance(one, list):
        return [_value(part) for part in one]
    if isinstance(one, float):
        return None if math.isnan(one) else round(one, 6) + 0.0
    return one


@pytest.mark.parametrize("seed", range(4))
async def test_every_answer_is_that_of_the_whole_table(seed: int, tmp_path: Path) -> None:
    """Whatever is pushed down, DuckDB over all rows says the same: same rows, same types, same errors."""
    rng = Random(seed)
    trio = Trio(tmp_path)
    pushing = SqlRunner(trio.reader, Metrics())
    plainly = SqlRunner(trio.reader, Metrics(), push_down=False)
    plan = plan_filters(Parameters.of([]), NOW, "default")
    how: dict[str, int] = {}
    for store in trio.stores.values():
        await store.start()
    try:
        entries, rows = random_entries(
            rng, 14, lambda service: trio.view.shards_holding("default", service)[0]
        )
        for entry in entries:
            await trio.write(entry, on=rng.choice([(0, 1), (1, 2), (0, 1, 2)]))
        whole = reference(rows)
        for number in range(2 * QUERIES_OF_A_SEED):
            sql = (random_query, wide_query)[number % 2](rng)
            try:
                wanted = plain(whole.sql(sql).to_arrow_table())
            except duckdb.Error:
                for runner in (pushing, plainly):
                    with pytest.raises(InvalidRequest):
                        await runner.run(sql, plan)
                continue
            for runner in (pushing, plainly):
                answer = await runner.run(sql, plan)
                assert answer.complete
                assert plain(answer.table) == wanted, (seed, number, sql, answer.stats)
                if runner is pushing:
                    how[answer.stats["how"]] = how.get(answer.stats["how"], 0) + 1
    finally:
        await pushing.close()
        await plainly.close()
        await trio.stop()
    assert how["partial aggregates"] >= 1, how  # both ways were taken, so both were tested
    assert how["rows"] >= 10, how
