"""Plans of faults: the same for the same seed, within the time, and with every hold that fits."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaos.nemesis import RAFT_LEADER, Recipe, plan
from chaos.scenarios import scenarios

NODES = ("node1", "node2", "node3")
PAUSES = Recipe("pause", ("any-1", RAFT_LEADER), (0.2, 1.0, 5.0, 15.0), (0.5, 1.5), 0.5)


def test_the_same_seed_gives_the_same_faults_and_another_seed_others() -> None:
    """So that a failing run can be repeated."""
    assert plan(PAUSES, NODES, 60, 7) == plan(PAUSES, NODES, 60, 7)
    assert plan(PAUSES, NODES, 60, 7) != plan(PAUSES, NODES, 60, 8)


@pytest.mark.parametrize("name", scenarios())
@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), seconds=st.floats(3, 120))
def test_plans_fit_into_the_time(name: str, seed: int, seconds: float) -> None:
    """One fault at least; more only as long as they are over, healed and recovered, in time."""
    recipe = scenarios()[name].recipe

    faults = plan(recipe, NODES, seconds, seed)

    assert faults
    assert len(faults) == 1 or (
        sum(one.wait + one.hold + recipe.recovery for one in faults) <= seconds + 0.01
    )
    for fault in faults:
        assert fault.hold > 0
        assert recipe.waits[0] - 0.001 <= fault.wait <= recipe.waits[1] + 0.001
        named = ("join", "drain", "replace", "hide", "quorum", "lost-disk", "cut-sweep")
        recipes = (recipe, *recipe.also) if recipe.what in named else ()
        roles = {choice for one in recipes for choice in one.choices}
        assert set(fault.targets) <= {*NODES, RAFT_LEADER, *roles}


def test_every_hold_comes_once_before_one_comes_again() -> None:
    """Among four pauses of a long run is the one that is longer than every time-out."""
    holds = [fault.hold for fault in plan(PAUSES, NODES, 600, 5)]

    for at in range(0, len(holds) - 4, 4):
        assert sorted(holds[at : at + 4]) == [0.2, 1.0, 5.0, 15.0]


def test_half_a_minute_of_pauses_holds_the_longest_one() -> None:
    """For most seeds; what no longer fits is left out rather than cut."""
    having = [15.0 in [one.hold for one in plan(PAUSES, NODES, 28, seed)] for seed in range(50)]

    assert sum(having) > 25
    assert all(one.hold < 15 for one in plan(PAUSES, NODES, 10, 3))


def test_choices_are_drawn_by_lot() -> None:
    """Each node is hit; two are two different ones; all are all."""
    one = {
        plan(Recipe("kill", ("any-1",), (1.0,), (1, 1), 1), NODES, 9, s)[0].targets
        for s in range(40)
    }
    two = {
        plan(Recipe("kill", ("any-2",), (1.0,), (1, 1), 1), NODES, 9, s)[0].targets
        for s in range(40)
    }

    assert one == {(node,) for node in NODES}
    assert two == {("node1", "node2"), ("node1", "node3"), ("node2", "node3")}
    assert plan(Recipe("kill", ("all",), (1.0,), (1, 1), 1), NODES, 9, 1)[0].targets == NODES


def test_the_same_node_or_each_in_turn() -> None:
    """`same-1` stays with its node for a whole run, `next-1` goes round."""
    same = plan(Recipe("corrupt", ("same-1",), (0.1,), (0.1, 0.2), 0.1), NODES, 9, 4)
    turns = plan(Recipe("restart", ("next-1",), (0.1,), (0.1, 0.2), 0.1), NODES, 9, 4)

    assert len({one.targets for one in same}) == 1
    assert len(same) > 5
    assert {one.targets for one in turns[:3]} == {(node,) for node in NODES}
    assert turns[3].targets == turns[0].targets


def test_a_mix_draws_from_all_its_recipes() -> None:
    """Each kind comes in a long run, with its own holds and targets."""
    mix = Recipe(
        "kill",
        ("any-1",),
        (1.0,),
        (0.1, 0.2),
        0.1,
        also=(Recipe("pause", ("all",), (2.0,), (9, 9), 9),),
    )

    found = {(one.what, len(one.targets), one.hold) for one in plan(mix, NODES, 60, 4)}

    assert found == {("kill", 1, 1.0), ("pause", 3, 2.0)}
