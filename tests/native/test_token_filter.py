"""The native builder of token filters against the one in Python: the same bits, whatever the texts.

Without the kernel these tests are skipped; CI builds it.
"""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from records import token_filter
from tests.unit.records.test_token_filter import TEXT, corpus

pytestmark = pytest.mark.skipif(token_filter.kernel is None, reason="the kernel is not installed")
WORD = st.text("aZ09", max_size=70)
CELL = st.one_of(TEXT, st.none(), st.lists(WORD, max_size=4).map("-".join), st.text(max_size=200))


@settings(max_examples=300)
@given(st.lists(CELL, max_size=6), st.booleans(), st.integers(0, 5))
def test_both_builders_give_the_same_bits(texts: list[str | None], words: bool, start: int) -> None:
    """Nulls, slices, words of every length around the eight bytes of a step and the 64 of a key."""
    array = pa.array(texts, pa.string()).slice(start)

    native, python = (token_filter.build(array, words, native=one) for one in (True, False))

    assert native == python


def test_a_whole_corpus_gives_the_same_bits() -> None:
    """Thousands of keys: the set of the kernel grows."""
    array = pa.array([f"{text} {n:x}" for n in range(40) for text in corpus()], pa.string())

    for words in (True, False):
        found = [token_filter.build(array, words, native=one) for one in (True, False)]
        assert found[0] == found[1]


@pytest.mark.parametrize("offsets", [[], [0, 6], [3, 1], [-1, 2]])
def test_offsets_outside_the_data_are_refused(offsets: list[int]) -> None:
    """An exception, not a read past the end."""
    data = np.frombuffer(b"hello", np.uint8)
    for words in (True, False):
        with pytest.raises(ValueError, match="offsets"):
            token_filter.kernel.token_filter(data, np.array(offsets, np.int32), words, 16)
