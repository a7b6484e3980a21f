"""Generations: what has a place keeps it, whatever is split later."""

from hypothesis import given
from hypothesis import strategies as st

from cluster.state_types import ClusterState
from cluster.view import ClusterView
from records.errors import NotReady
from ring.generations import (
    EPOCHS_OF_A_GENERATION,
    MAX_GENERATIONS,
    UNSPLIT,
    Generation,
    begun_before,
    generation_of,
    next_epoch,
)

#: Ascending factors of the generations after the first.
FACTORS = st.lists(st.integers(2, 32), min_size=1, max_size=6, unique=True).map(sorted)
KEY = ("default", "hot")


def view_of(factors: list[int]) -> ClusterView:
    """A view in which `hot` was split so often."""
    generations = (*UNSPLIT, *(Generation(one, at) for at, one in enumerate(factors, 1)))
    return ClusterView("n", ClusterState(splits={KEY: generations}), alive=lambda _: True)


@given(FACTORS, st.integers(1, MAX_GENERATIONS * EPOCHS_OF_A_GENERATION - 1), st.text(max_size=8))
def test_a_rows_shard_never_changes_when_generations_are_appended(
    factors: list[int], epoch: int, producer: str
) -> None:
    """Before its generation begins an epoch has no shard; from then on always the same one."""
    found: set[int] = set()
    for known in range(len(factors) + 1):
        view = view_of(factors[:known])
        try:
            shard = view.shard_of(*KEY, producer, epoch)
        except NotReady:
            assert generation_of(epoch) > known
            assert not found
        else:
            assert generation_of(epoch) <= known
            assert shard in view.shards_holding(*KEY)
            found.add(shard)
    assert len(found) <= 1


@given(FACTORS, st.text(max_size=8))
def test_what_a_read_asks_holds_all_shards_of_all_generations(
    factors: list[int], producer: str
) -> None:
    """And the epochs of generation 0 are at home, which a read of any age asks."""
    view = view_of(factors)
    held = view.shards_holding(*KEY)

    places = [view.shard_under(*KEY, producer, one) for one in range(len(factors) + 1)]
    assert set(places) <= set(held)
    assert places[0] == held[0] == view.shards_of_services("default", ["hot"])[0]
    older = view_of(factors[:-1]).shards_holding(*KEY)
    assert held[: len(older)] == older


@given(st.integers(0, 3), st.integers(0, 4 * EPOCHS_OF_A_GENERATION))
def test_issued_epochs_ascend_and_carry_their_generation(generation: int, newest: int) -> None:
    """Never 1, with which producers begin unasked; none if a later generation has one."""
    issued = next_epoch(newest, generation)

    if issued is None:
        assert newest + 1 >= (generation + 1) * EPOCHS_OF_A_GENERATION
    else:
        assert issued > max(1, newest)
        assert generation_of(issued) == generation


def test_every_epoch_is_exact_in_json() -> None:
    """Readers of JSON that know doubles alone keep whole numbers up to 2^53."""
    assert MAX_GENERATIONS * EPOCHS_OF_A_GENERATION <= 1 << 53


def test_the_generation_just_before_a_moment() -> None:
    """A split counts from its own microsecond on."""
    generations = (*UNSPLIT, Generation(2, 100), Generation(4, 200))

    assert [begun_before(generations, at) for at in (0, 100, 101, 200, 201)] == [0, 0, 1, 1, 2]
