"""Token filters never say "no" wrongly, and their bits stay what they are."""

import hashlib
import re
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from records import token_filter

GOLDEN = Path(__file__).parent / "golden" / "token-filter-v1.txt"
#: Letters that change under case folding, cross into ASCII, or only look like separators.
ALPHABET = (
    "aAkKsSzZ09 -_.:/\u212a\u017f\u00df\u1e9e\u0130\u0131\u00e9\u00c9\u4e2d\u0660\u0301\U0001d538"
)
TEXT = st.one_of(st.text(ALPHABET, max_size=12), st.text(max_size=12))


def holds(filter_bytes: bytes, keys: list[bytes]) -> bool:
    """Whether a filter says "maybe" for all keys."""
    bits = np.frombuffer(filter_bytes, "<u8").reshape(-1, 8)
    one = np.array([0]), np.array([len(bits)])
    return all(token_filter.maybe(token_filter.hash_key(key), bits, *one)[0] for key in keys)


def words_filter(texts: list[str], native: bool = True) -> bytes:
    """The word filter of some messages."""
    array = token_filter.fold_letters(pa.array(texts, pa.string()))
    return token_filter.build(array, words=True, native=native)


@settings(max_examples=150)
@given(st.lists(TEXT, min_size=1, max_size=4), TEXT)
def test_a_word_that_matches_is_never_denied(texts: list[str], wanted: str) -> None:
    """The judge is the regular expression that decides `word` when rows are read."""
    pattern = rf"(?i)(?:^|[^\p{{L}}\p{{N}}]){re.escape(wanted)}(?:[^\p{{L}}\p{{N}}]|$)"
    texts = [*texts, f"-{wanted.swapcase()}-", f"{wanted}"]
    for text in texts:
        if pl.Series([text]).str.contains(pattern)[0]:
            assert holds(words_filter([text]), token_filter.words_of(wanted))


@settings(max_examples=150)
@given(TEXT, TEXT, TEXT)
def test_a_phrase_that_occurs_is_never_denied(before: str, wanted: str, after: str) -> None:
    """Words at its ends may go on outside, so only those inside are looked up."""
    found = words_filter([before + wanted + after])

    assert holds(found, token_filter.words_inside(wanted))


@settings(max_examples=100)
@given(st.lists(st.one_of(TEXT, st.none()), max_size=8), st.integers(0, 7))
def test_a_value_is_never_denied(values: list[str | None], start: int) -> None:
    """Nulls, slices, empty texts."""
    array = pa.array(values, pa.string()).slice(start)
    found = token_filter.build(array, words=False)

    for value in array.to_pylist():
        if value is not None:
            assert holds(found, [value.encode()])


def test_words_are_cut_alike_in_text_and_question() -> None:
    """Lower-case runs of ASCII letters and digits; other letters separate, but for two."""
    assert token_filter.words_of("User=u-17, caf\u00e9!") == [b"user", b"u", b"17", b"caf"]
    assert token_filter.words_of("\u212aelvin Mi\u017f\u017f") == [b"kelvin", b"miss"]
    assert token_filter.words_of("\u4e2d\u6587") == []
    assert token_filter.words_inside("card was declined") == [b"was"]
    assert token_filter.words_inside(" card declined.") == [b"card", b"declined"]


def test_words_of_neighbouring_rows_do_not_join() -> None:
    """The builders see all rows as one run of bytes."""
    for native in (False, True):
        found = words_filter(["ab", "cd", "", "ef"], native)
        assert holds(found, [b"ab", b"cd", b"ef"])
        assert not holds(found, [b"abcd"])
        assert not holds(found, [b"cdef"])


def test_absent_words_are_mostly_denied() -> None:
    """16 bits a word: about one false "maybe" in a thousand; five times that would be a broken hash."""
    found = words_filter([" ".join(f"w{n}x{n * 7}" for n in range(i, i + 10)) for i in range(2000)])

    wrong = sum(holds(found, [b"absent%d" % n]) for n in range(4000))

    assert wrong < 20


def test_long_keys_differ_by_length_and_first_bytes() -> None:
    """A word of a megabyte costs eight steps."""
    for native in (False, True):
        found = words_filter(["x" * 1_000_000], native)
        assert holds(found, [b"x" * 1_000_000])
        assert not holds(found, [b"x" * 999_999])


def corpus() -> list[str]:
    """Messages that need every branch of the builders."""
    texts = [
        f"request id={n:x} user=u-{n % 97} caf\u00e9 \u212a{n} {'long' * n}" for n in range(300)
    ]
    return [*texts, "", "x" * 63, "y" * 64, "z" * 65, "\u4e2d\u6587", "A_b.C:d"]


def test_the_bits_are_those_of_the_golden_file() -> None:
    """Filters are stored: another hash or another cut of words would deny what old blocks hold."""
    array = pa.array(corpus(), pa.string())
    found = [words_filter(corpus()), token_filter.build(array, words=False)]

    lines = [f"{len(one)} {hashlib.sha256(one).hexdigest()}" for one in found]

    assert lines == GOLDEN.read_text().split("\n")[:2]
