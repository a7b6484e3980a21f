"""Damage to files: what is changed where, and that nothing else is. On files that are only pretended."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import storage
from chaos.checkers_nodes import CRASHES
from chaos.faults import KINDS, Site
from chaos.faults.files import PAGE, damage
from chaos.history import AT_REST, CUTS
from chaos.processes import FaultDidNotBite
from chaos.remote import is_safe
from chaos.scenarios import scenarios
from chaos.states import DAMAGE
from runtime.entropy import SeededEntropy

WRITTEN = bytes(range(1, 251)) * 40  # 10,000 bytes without a zero, and reserved space behind


def site(seed: int) -> Site:
    """A site with no cluster, and a lot."""
    nothing: Any = SimpleNamespace()
    return Site(nothing, lot=SeededEntropy(seed))


def file(tmp_path: Path) -> Path:
    """A log file with reserved space at its end."""
    path = tmp_path / "00000001.qlog"
    path.write_bytes(WRITTEN + bytes(6000))
    return path


@pytest.mark.parametrize("seed", range(8))
def test_a_flip_changes_one_bit_of_what_was_written(seed: int, tmp_path: Path) -> None:
    """Never of reserved space, where it would prove nothing."""
    path = file(tmp_path)

    at = damage(path, "flip", site(seed))

    found = path.read_bytes()
    different = [
        i for i, (a, b) in enumerate(zip(found, WRITTEN + bytes(6000), strict=True)) if a != b
    ]
    assert different == [at]
    assert at < len(WRITTEN)
    assert (found[at] ^ WRITTEN[at]).bit_count() == 1


def test_a_page_of_zeros_a_torn_tail_and_a_lost_file(tmp_path: Path) -> None:
    """Each in its place; the rest stays."""
    path = file(tmp_path)
    at = damage(path, "zero", site(1))
    assert at % PAGE == 0
    assert path.read_bytes()[at : at + 100] == bytes(100)
    assert path.read_bytes()[:at] == WRITTEN[:at]

    at = damage(path, "tear", site(2))
    assert path.stat().st_size == at < len(WRITTEN)

    damage(path, "lose", site(3))
    assert not path.exists()


def test_an_empty_file_cannot_be_damaged(tmp_path: Path) -> None:
    """The fault did not bite, and that is said."""
    path = tmp_path / "00000002.qlog"
    path.write_bytes(bytes(4096))

    with pytest.raises(FaultDidNotBite, match="empty"):
        damage(path, "flip", site(1))


def test_history_knows_which_kinds_put_their_targets_to_rest() -> None:
    """The checkers rest upon it: a kind that says so here says so there, and the cuts are kinds."""
    assert {name for name, kind in KINDS.items() if kind.at_rest} == AT_REST
    assert set(KINDS) >= CUTS


def test_faults_and_words_that_the_checkers_look_for_exist() -> None:
    """One that nobody does or says any more would be a check that cannot fail."""
    assert set(CRASHES) <= set(KINDS)
    events = [
        event
        for path in (Path(storage.__file__).parent).rglob("*.py")
        for event in re.findall(r'log\.error\(\s*"([^"]+)"', path.read_text())
    ]
    for word in DAMAGE:
        assert any(word in event for event in events), word


def test_every_scenario_names_kinds_that_exist() -> None:
    """Also those it may draw beside the first; only faults of links are safe for others' clusters."""
    for scenario in scenarios().values():
        recipes = (scenario.recipe, *scenario.recipe.also)
        assert {one.what for one in recipes} <= set(KINDS), scenario.name
    safe = {name for name, one in scenarios().items() if is_safe(one)}
    assert safe == {"lost-replies", "cut-answers", "slow-link", "sliced-link", "swizzle"}
