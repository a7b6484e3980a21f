"""A wall clock that is wrong on purpose: off by what a file says, durations untouched."""

from pathlib import Path

from runtime.clock import OFFSET_VARIABLE, OffsetClock, SystemClock, clock_of

HOUR = 3_600_000_000


def test_the_wall_clock_is_off_by_what_the_file_says(tmp_path: Path) -> None:
    """At once when the file changes; right without the file, or with half a number in it."""
    path = tmp_path / "offset"
    clock = clock_of({OFFSET_VARIABLE: str(path)})

    def off() -> int:
        return round((clock.wall_micros() - SystemClock().wall_micros()) / HOUR)

    assert isinstance(clock, OffsetClock)
    assert off() == 0
    path.write_text(str(-HOUR))
    assert off() == -1
    path.write_text(str(24 * HOUR))
    assert off() == 24
    path.write_text("-")
    assert off() == 0


def test_only_who_asks_for_it_gets_a_wrong_clock() -> None:
    """Without the variable it is the machine's."""
    assert type(clock_of({})) is SystemClock
