"""The search through pages finds what the search through columns finds, with kernel and without.

The reference is the same store with the kernel taken away: filters by Polars over Arrow's columns.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from records.block_codec import EncodedBlock
from records.needle import needle_of
from records.parquet_pages import unpacked
from records.predicates import Aggregate, Filter, Fold, ScanPlan
from runtime.metrics import Metrics
from storage import text_pages
from storage.scan_filter import BlockView, evaluate
from storage.service import StorageService
from storage.text_pages import KEEP_EVERY, TextPages, search
from tests.unit.storage.samples import OPTIONS, Entry, block_of, plain, row, scan_of, service_on

pytestmark = pytest.mark.skipif(
    not TextPages.able(), reason="quorumlog_native is not installed, or older than the search"
)
WORDS = st.lists(
    st.sampled_from(["card", "Card", "CARD", "declined", "\u212aey", "key", "\u017fet", "set", "ünit",
                     "7", "id=dead01", "id=beef01", "", ".", "\x00", "a\x04\x00\x00\x00b"]),
    max_size=5,
).map(" ".join)  # fmt: skip
ASKED = st.one_of(
    st.tuples(st.just("phrase"), WORDS),
    st.tuples(st.just("word"), st.sampled_from(["card", "KEY", "set", "declined", "ünit", "ard"])),
    st.tuples(
        st.just("regex"),
        st.just("message"),
        st.sampled_from(["id=dead[0-9]+", "^card", "(?i)card", "decl.*card", "set|key", "clined$"]),
    ),
)
TREES = st.recursive(
    ASKED,
    lambda inner: st.one_of(
        st.tuples(st.just("not"), inner),
        st.tuples(st.just("and"), inner, st.just(("eq", "level", "error"))),
        st.tuples(st.just("or"), inner, inner),
    ),
    max_leaves=4,
)


@asynccontextmanager
async def serving(blocks: list[EncodedBlock], metrics: Metrics) -> AsyncIterator[StorageService]:
    """A storage node that holds these blocks."""
    with TemporaryDirectory() as directory:
        service = service_on(Path(directory), metrics=metrics)
        await service.start()
        try:
            for block in blocks:
                await service.put(block, OPTIONS)
            yield service
        finally:
            await service.stop()


def scanned(blocks: list[EncodedBlock], tree: Filter, metrics: Metrics) -> tuple[int, list[str]]:
    """(rows counted, messages found)."""
    count = ScanPlan(filter=tree, fold=Fold((), (Aggregate("n", "count"),)))
    rows = ScanPlan(filter=tree, fields=("message",), limit=1000)

    async def run() -> tuple[int, list[str]]:
        async with serving(blocks, metrics) as service:
            _, groups = await service.scan(scan_of(count))
            _, found = await service.scan(scan_of(rows))
        messages = found["message"].to_pylist() if found.num_rows else []
        return sum(groups["n"].to_pylist()), messages

    return asyncio.run(run())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(WORDS, min_size=1, max_size=8), min_size=1, max_size=3), TREES)
@example([["a\x04\x00\x00\x00b", "b"]], ("phrase", "\x04\x00"))
def test_a_store_with_the_kernel_answers_as_one_without(
    texts: list[list[str]], tree: Filter
) -> None:
    """Whole scans, counted and as rows, over several blocks in which some rows are errors."""
    blocks = []
    for number, some in enumerate(texts):
        rows = [
            row(i, text, level="error" if i % 3 else "info", host=str(number))
            for i, text in enumerate(some)
        ]
        blocks.append(block_of(number, Entry(rows, name=b"%d" % number)))

    with_kernel = scanned(blocks, tree, Metrics())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_pages, "kernel", None)
        without = scanned(blocks, tree, Metrics())

    assert with_kernel == without


@settings(max_examples=150, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=30), ASKED, st.sampled_from([64, 1 << 20]))
def test_the_mask_is_that_of_the_filter(texts: list[str], tree: Filter, page_bytes: int) -> None:
    """One column chunk of one page or several; what the needle does not decide, the filter does."""
    column = pa.array(texts, pa.string())
    expected = evaluate(tree, BlockView({"message": column}.get, len(texts)))
    needle = needle_of(tree[0], tree[-1])
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table({"message": column}), sink, compression="zstd", use_dictionary=False,
        data_page_size=page_bytes, write_batch_size=2,
    )  # fmt: skip
    body = sink.getvalue()
    chunk = pq.read_metadata(pa.BufferReader(body)).row_group(0).column(0)
    first = chunk.data_page_offset
    view = memoryview(body)[first : first + chunk.total_compressed_size]
    pages = unpacked(view, len(texts), pa.Codec("zstd"))
    assert pages is not None
    if needle is None:
        return

    asked: list[int] = []

    def judge(found: pa.Array) -> np.ndarray:
        asked.append(len(found))
        return evaluate(tree, BlockView({"message": found}.get, len(found)))

    mask = search(pages, needle, judge)

    assert mask is not None
    assert mask.tolist() == expected.tolist()
    assert sum(asked) <= len(texts)
    assert not (needle.whole and asked)


def test_a_search_decodes_no_messages_and_keeps_pages_searched_twice() -> None:
    """Three new texts: pages are read twice, then half are found; the column is never asked for."""
    metrics = Metrics()
    blocks = [block_of(n, plain(n * 10, 5, f"card {n}", name=b"%d" % n)) for n in range(3)]

    async def run() -> list[dict[str, float]]:
        seen = []
        async with serving(blocks, metrics) as service:
            for text in ("card", "ard", "rd"):
                fold = Fold((), (Aggregate("n", "count"),))
                plan = ScanPlan(filter=("phrase", text), fold=fold)
                _, groups = await service.scan(scan_of(plan))
                assert groups["n"].to_pylist() == [15]
                names = ("quorumlog_text_pages_total", "quorumlog_hot_columns_total")
                value = metrics.registry.get_sample_value
                seen.append(
                    {
                        "kept": value(names[0], {"found": "kept"}) or 0,
                        "read": value(names[0], {"found": "read"}) or 0,
                        "columns": value(names[1], {"found": "no"}) or 0,
                    }
                )
        return seen

    assert asyncio.run(run()) == [
        {"kept": 0, "read": 3, "columns": 0},
        {"kept": 0, "read": 6, "columns": 0},
        {"kept": 2, "read": 7, "columns": 0},
    ]


def test_more_pages_than_fit_do_not_drive_each_other_out() -> None:
    """Searched again and again, as many as fit are found; the others are read."""
    sink = pa.BufferOutputStream()
    texts = [f"{i} {i * 7919 % 1009}" for i in range(500)]
    pq.write_table(
        pa.table({"message": texts}), sink, compression="zstd", use_dictionary=False,
    )  # fmt: skip
    body = memoryview(sink.getvalue())
    footer = pq.read_metadata(pa.BufferReader(sink.getvalue()))
    metrics = Metrics()
    pages = TextPages(20_000, metrics)
    blocks = 2 * KEEP_EVERY

    for _ in range(6):
        for ordinal in range(blocks):
            assert pages.group((ordinal, 0), footer, 0, lambda low, high: body[low:high])

    assert 0 < pages.size <= 20_000
    kept = metrics.registry.get_sample_value("quorumlog_text_pages_total", {"found": "kept"})
    assert kept is not None
    assert kept > blocks / 8

    for ordinal in range(blocks):
        pages.forget(ordinal)
    assert pages.size == 0
