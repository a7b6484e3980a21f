"""The free-space floor: read-only below it, writable again only well above it."""

from storage.disk_floor import DiskFloor


def test_a_node_near_the_floor_does_not_flap() -> None:
    """Down at 99, still down at 100 and 119, up again at 120: floor 100, hysteresis 20."""
    floor = DiskFloor(100, 20)

    assert [floor.observe(free) for free in (150, 100, 99, 98, 100, 119, 120, 100)] == [
        False, False, True, False, False, False, True, False,
    ]  # fmt: skip
    assert not floor.low
    assert floor.free_bytes == 100
