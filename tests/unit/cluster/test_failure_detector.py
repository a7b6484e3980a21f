"""The failure detector: suspicion grows with silence, measured in the member's own habits."""

import math

from cluster.failure_detector import PHI_THRESHOLD, FailureDetector


def regular(detector: FailureDetector, member: str, gap: float, count: int) -> float:
    """Signs of life each `gap` seconds; the time of the last."""
    for step in range(count):
        detector.sign_of_life(member, step * gap)
    return (count - 1) * gap


def test_a_member_never_heard_of_is_taken_for_alive() -> None:
    """Nothing is known at start, and a guess of death would route around everybody."""
    assert FailureDetector().alive("a", now=100.0)


def test_silence_makes_suspect_only_beyond_the_members_own_habit() -> None:
    """With signs each 100 ms, 300 ms are no news, 2 s are death; with signs each 5 s, 6 s are none."""
    detector = FailureDetector()
    quick = regular(detector, "quick", 0.1, 50)
    slow = regular(detector, "slow", 5.0, 50)

    assert detector.alive("quick", quick + 0.3)
    assert not detector.alive("quick", quick + 2.0)
    assert detector.alive("slow", slow + 5.3)


def test_suspicion_never_falls_while_silence_lasts() -> None:
    """phi is a monotone function of silence."""
    detector = FailureDetector()
    last = regular(detector, "a", 0.1, 20)

    values = [detector.phi("a", last + step / 10) for step in range(50)]

    assert values == sorted(values)
    assert values[0] < PHI_THRESHOLD < values[-1]


def test_a_refused_connection_makes_suspect_at_once_until_the_next_sign_of_life() -> None:
    """A dead process refuses connections within a millisecond: no need to wait for silence."""
    detector = FailureDetector()
    last = regular(detector, "a", 0.1, 20)

    detector.refused("a", last)
    assert detector.phi("a", last) == math.inf

    detector.sign_of_life("a", last + 30)
    assert detector.alive("a", last + 30.1)
    assert not detector.alive("a", last + 33), "the outage is not a gap that the member is used to"


def test_an_answered_call_takes_back_a_refusal_and_a_refusal_ages() -> None:
    """Nobody calls a member that is held for dead, so the opinion must expire by itself."""
    detector = FailureDetector()
    detector.refused("a", 10.0)
    assert detector.lately_refused("a", 10.9)
    assert not detector.lately_refused("a", 11.1)

    detector.refused("a", 12.0)
    detector.answered("a")
    assert not detector.lately_refused("a", 12.0)
