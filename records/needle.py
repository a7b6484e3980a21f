"""From a search to a text that every match holds: what a native pass can look for in place of it. Pure.

    phrase  "card declined"          itself, and that is the whole question
    word    stockroom, any case      "toc": runs of ASCII letters and digits, less k and s
    regex   id=dead[0-9a-f]{4}       "id=dead": the longest text outside groups, classes and repeats

Of words and regexes it gives candidates, which the search itself then judges. None where no text is sure,
or one is too short to be rare. k and s are left out where case is ignored: U+212A and U+017F equal them, and
have more bytes. Reading a regular expression errs on the side of None: flags, alternatives, and what it does
not know.
"""

import re
from dataclasses import dataclass

#: A shorter text is in most rows, and the pass would be in vain.
NEEDLE_MIN = 3
_SURE = re.compile(r"[0-9a-jl-rt-z]+")
_REPEAT = re.compile(r"\{([0-9]+)(,[0-9]*)?\}")
_CLASSES = "dDwWsSbBAz"
_GROUPS = re.compile(r"\((?:\?:|\?P?<[A-Za-z_][A-Za-z0-9_]*>)?(?!\?)")


@dataclass(frozen=True, slots=True)
class Needle:
    """`fold`: in either case, and `text` is lower-case. `whole`: a row matches if and only if it holds it."""

    text: bytes
    fold: bool
    whole: bool


def needle_of(kind: str, text: str) -> Needle | None:
    """What to look for instead of a `word`, `phrase` or `regex` condition."""
    if kind == "phrase":
        return Needle(_bytes(text), False, True) if text else None
    if kind == "word":
        runs = _SURE.findall(text.lower()) if text.isascii() else _SURE.findall(_ascii_lower(text))
        return _longest(runs, fold=True)
    if kind == "regex":
        return _longest(_sure_texts(text) or [], fold=False)
    return None


def _ascii_lower(text: str) -> str:
    """ASCII letters lower-case, all else as it is: what other letters equal is not ours to say."""
    return "".join(char.lower() if char.isascii() else char for char in text)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _longest(runs: list[str], fold: bool) -> Needle | None:
    best = max((_bytes(run) for run in runs), key=len, default=b"")
    return Needle(best, fold, False) if len(best) >= NEEDLE_MIN else None


def _sure_texts(pattern: str) -> list[str] | None:
    """Texts that every match of a regular expression holds; None if it has parts we do not read."""
    runs: list[str] = [""]
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char in "|)":
            return None
        if char in "*+?{":
            after = _repeat_end(pattern, at)
            if after is None:
                return None
            at, fewest = after
            if fewest == 0:
                runs[-1] = runs[-1][:-1]
            runs.append("")
            continue
        atom = _atom(pattern, at)
        if atom is None:
            return None
        text, at = atom
        if text:
            runs[-1] += text
        else:
            runs.append("")
    return runs


def _repeat_end(pattern: str, at: int) -> tuple[int, int] | None:
    """(place behind the repetition at `at`, fewest repeats)."""
    if pattern[at] != "{":
        end, fewest = at + 1, int(pattern[at] == "+")
    else:
        found = _REPEAT.match(pattern, at)
        if found is None:
            return None
        end, fewest = found.end(), int(found[1])
    if pattern[end : end + 1] == "?":  # as few as possible
        end += 1
    if pattern[end : end + 1] in ("*", "+", "{"):
        return None
    return end, fewest


def _atom(pattern: str, at: int) -> tuple[str, int] | None:
    """(the text that the atom at `at` stands for, "" if it is not one, the place behind it)."""
    char = pattern[at]
    if char in "^$.":
        return "", at + 1
    if char == "\\":
        return _escape(pattern, at)
    if char == "[":
        end = _class_end(pattern, at)
    elif char == "(":
        end = _group_end(pattern, at)
    else:
        return char, at + 1
    return None if end is None else ("", end)


def _escape(pattern: str, at: int) -> tuple[str, int] | None:
    escaped = pattern[at + 1 : at + 2]
    if not escaped or not escaped.isascii():
        return None
    if escaped in _CLASSES:
        return "", at + 2
    return None if escaped.isalnum() or escaped in "<>" else (escaped, at + 2)


def _class_end(pattern: str, at: int) -> int | None:
    """Behind a plain class; None for classes within classes and their operators."""
    at += 1
    if pattern[at : at + 1] == "^":
        at += 1
    if pattern[at : at + 1] == "]":
        at += 1
    while at < len(pattern):
        char = pattern[at]
        if char == "]":
            return at + 1
        if char == "[" or pattern[at : at + 2] in ("&&", "--", "~~"):
            return None
        at += 2 if char == "\\" else 1
    return None


def _group_end(pattern: str, at: int) -> int | None:
    """Behind a group, whatever is in it; None if it sets flags or holds what we do not read."""
    found = _GROUPS.match(pattern, at)
    if found is None:
        return None
    at = found.end()
    while at < len(pattern):
        char = pattern[at]
        if char == ")":
            return at + 1
        if char in "|*+?{":
            at += 1
            continue
        atom = _atom(pattern, at)
        if atom is None:
            return None
        at = atom[1]
    return None
