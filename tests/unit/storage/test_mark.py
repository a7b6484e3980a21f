"""How far a store has come: only ever more, on disk before it is told."""

from pathlib import Path

import pytest

from records.errors import InvalidSettings
from storage.home import Home
from storage.mark import StoreMark


def test_a_mark_rises_at_each_start_and_beyond_what_is_known(tmp_path: Path) -> None:
    """The first start of a directory says nothing; then each says more than all before."""
    mark = StoreMark(tmp_path)
    assert mark.begin() == 0
    assert [mark.rise(), mark.rise(), mark.rise(known=7)] == [1, 2, 8]

    again = StoreMark(tmp_path)
    assert [again.begin(), again.rise(), StoreMark(tmp_path).begin()] == [9, 10, 11]


def test_a_new_store_has_a_mark_from_the_first_moment(tmp_path: Path) -> None:
    """So that the first copy of it says how old it is."""
    home = Home(tmp_path, "n1")
    home.close()

    assert StoreMark(tmp_path).begin() == 2


def test_a_mark_that_cannot_be_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node with a full disk starts: what it told is what it has."""
    mark = StoreMark(tmp_path)
    mark.rise()

    def full(_: Path) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr("storage.mark.sync_directory", full)
    again = StoreMark(tmp_path)
    assert [mark.rise(), again.begin()] == [1, 2]
    assert [again.rise(), again.value] == [2, 2]


@pytest.mark.parametrize("text", ["", "seven", "\0\0"])
def test_a_mark_that_is_no_number_is_not_taken_for_none(tmp_path: Path, text: str) -> None:
    """Damage is no reason to believe: an operator looks, and may take the file away."""
    (tmp_path / "mark").write_text(text)

    with pytest.raises(InvalidSettings, match="cannot be read"):
        StoreMark(tmp_path).begin()
