"""What the files say: no paths of one machine, no left-overs."""

import re
from pathlib import Path

import pytest

from tests.support.source import ROOT, product_files, tracked_files

#: Folders of somebody's machine; what is meant for any machine stands beside it.
MACHINE_PATHS = re.compile(r"(?<![\w.~-])/(work|home/\w+|Users/\w+|root|farm)/[\w.]")
LEFT_OVERS = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")


def name_of(file: Path) -> str:
    """The path in the project."""
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", tracked_files(), ids=name_of)
def test_no_file_names_a_machine(file: Path) -> None:
    """A path that exists on one machine alone has no place in the project."""
    if file.resolve() == Path(__file__).resolve():
        return
    text = file.read_text(encoding="utf-8", errors="replace")

    found = MACHINE_PATHS.search(text)
    assert found is None, found


@pytest.mark.parametrize("file", product_files(), ids=name_of)
def test_product_files_hold_no_left_overs(file: Path) -> None:
    """What is not done stands under "not yet" in the README, not in a comment."""
    assert LEFT_OVERS.search(file.read_text(encoding="utf-8")) is None
