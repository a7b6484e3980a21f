"""Which format raw text is taken for, where nobody said it."""

import polars as pl
import pytest

from ingestor.parsers.plain import detect

PAIRS = 'time=2026-11-22T04:31:44Z level=info msg="card declined" trace=7f duration_ms=12'
TEXT = (
    "2026-11-22T04:31:44.439284Z WARN inventory cache miss: 61 keys trace_id=a37601 duration_ms=258"
)
ACCESS = '10.0.32.27 - u-2075 [22/Nov/2026:04:31:48 +0000] "POST /checkout/8338 HTTP/1.1" 200 12593'


@pytest.mark.parametrize(
    ("line", "form"),
    [
        ('{"message":"x"}', "json"),
        (PAIRS, "logfmt"),
        (f"  {PAIRS}", "logfmt"),
        (TEXT, "plain"),
        ("paid a=1 b=2", "plain"),
        ("2026-11-22T04:31:44Z stdout F a=1 b=2", "cri"),
        (ACCESS, "common"),
        ("nothing known", "plain"),
    ],
)
def test_the_format_of_twenty_lines_alike(line: str, form: str) -> None:
    """Text that ends with pairs is no logfmt: its time, level and message would be lost."""
    assert detect(pl.Series([line] * 20)) == form


def test_one_line_in_ten_may_be_another() -> None:
    """Nine of ten decide; of fewer, none does."""
    assert detect(pl.Series([PAIRS] * 9 + [TEXT])) == "logfmt"
    assert detect(pl.Series([PAIRS] * 8 + [TEXT] * 2)) == "plain"
