"""Needles: whatever matches a search holds its needle. Polars is the judge, as it is in the store."""

import re

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from records.needle import Needle, needle_of


@pytest.mark.parametrize(
    ("kind", "text", "needle"),
    [
        ("phrase", "Card declined", Needle(b"Card declined", False, True)),
        ("phrase", "ß", Needle("ß".encode(), False, True)),
        ("phrase", "", None),
        ("word", "Unicorn", Needle(b"unicorn", True, False)),
        ("word", "stockroom", Needle(b"room", True, False)),
        ("word", "kisk", None),
        ("word", "überall", Needle(b"berall", True, False)),
        ("regex", "id=dead[0-9a-f]{4}", Needle(b"id=dead", False, False)),
        ("regex", "^charged [0-9]+ EUR$", Needle(b"charged ", False, False)),
        ("regex", r"took \d+ms, retry\.", Needle(b"ms, retry.", False, False)),
        ("regex", "colou?red", Needle(b"colo", False, False)),
        ("regex", "abcd*x", Needle(b"abc", False, False)),
        ("regex", "abcd{0,2}x", Needle(b"abc", False, False)),
        ("regex", "abc+?defg", Needle(b"defg", False, False)),
        ("regex", "(get|put|longest) /cart", Needle(b" /cart", False, False)),
        ("regex", "(?P<verb>get) /cart", Needle(b" /cart", False, False)),
        ("regex", "declined|refused", None),
        ("regex", "(?i)declined", None),
        ("regex", "(?i:declined) card", None),
        ("regex", "(?x) decl ined", None),
        ("regex", r"\p{L}declined", None),
        ("regex", r"\x41declined", None),
        ("regex", "[a&&b]declined", None),
        ("regex", "ab", None),
        ("exists", "message", None),
    ],
)
def test_the_longest_text_that_is_sure(kind: str, text: str, needle: Needle | None) -> None:
    """By hand; where a part is not read, there is none."""
    assert needle_of(kind, text) == needle


ATOMS = st.sampled_from(
    ["a", "b", "ab", "K", "\u212a", "é", r"\.", r"\d", r"\b", ".", "[ab]", "[^a]", "(ab|b)", "(?:ab)",
     "(a(b|)a)", "[]a]", r"[\]b]", "^", "$", "|", "(?i)", "{", " "]
)  # fmt: skip
REPEATS = st.sampled_from(["", "", "", "", "*", "+", "?", "{2}", "{0,1}", "{1,}", "??", "+?"])
PATTERNS = st.lists(st.tuples(ATOMS, REPEATS).map("".join), min_size=1, max_size=8).map("".join)
TEXTS = st.lists(st.text("abABkK\u212aé.19| ", max_size=12), min_size=1, max_size=20)


@given(PATTERNS, TEXTS)
@example("aba?bab", ["abbab", "ababab"])
@example("(ab|b)bab", ["bbab"])
def test_what_matches_a_regex_holds_its_needle(pattern: str, texts: list[str]) -> None:
    """Patterns of parts that are read and parts that are not; texts of the same letters."""
    needle = needle_of("regex", pattern)
    try:
        matches = pl.Series(texts).str.contains(pattern).to_list()
    except pl.exceptions.ComputeError:
        return
    for text, matching in zip(texts, matches, strict=True):
        if needle is not None and matching:
            assert needle.text in text.encode()


@given(st.text("abksKS\u212a\u017fß\u1e9eI\u0131\u01301-", min_size=1, max_size=6), st.data())
def test_what_matches_a_word_holds_its_needle(word: str, data: st.DataObject) -> None:
    """Letters that equal others when case is ignored, in the word and in the text."""
    needle = needle_of("word", word)
    letter = st.sampled_from(sorted({*word, *word.upper(), *word.lower(), *"kKsS\u212a\u017f"}))
    texts = data.draw(st.lists(st.lists(letter, max_size=8).map("".join), max_size=10))
    pattern = f"(?i){re.escape(word)}"
    matches = pl.Series([*texts, word.swapcase()], dtype=pl.String).str.contains(pattern).to_list()
    for text, matching in zip([*texts, word.swapcase()], matches, strict=True):
        if needle is not None and matching:
            folded = text.encode().lower()  # bytes: ASCII alone
            assert needle.text in folded
