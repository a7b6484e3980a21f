"""SimDisk: what survives a power cut is what was synced, under a name that was synced."""

import errno
import os

import pytest

from chaos.sim.clock import Dice
from chaos.sim.disk import PowerCut, SimDisk, SimPath
from chaos.sim.pages import PAGE
from chaos.sim.system import SimOs

SEEDS = range(40)


def made(seed: int) -> tuple[SimDisk, SimOs, SimPath, int]:
    """A disk with one open file of two synced pages of `a`, its name synced."""
    disk, system = SimDisk("n", Dice(seed)), SimOs()
    path = disk.path("log") / "1.qlog"
    fd = system.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    disk.write(fd, [b"a" * 2 * PAGE], 0)
    disk.sync(fd)
    system.fsync(system.open(path.parent, os.O_RDONLY | os.O_DIRECTORY))
    return disk, system, path, fd


@pytest.mark.parametrize("seed", SEEDS)
def test_synced_bytes_survive_and_unsynced_pages_are_old_new_or_torn(seed: int) -> None:
    """Page 0 was not written again; page 1 was, without a sync."""
    disk, _, path, fd = made(seed)
    disk.write(fd, [b"b" * PAGE], PAGE)

    disk.power_cut(Dice("cut", seed))

    content = path.read_bytes()
    assert content[:PAGE] == b"a" * PAGE
    assert len(content) == 2 * PAGE
    assert content[PAGE:] == b"b" * content.count(b"b") + b"a" * (PAGE - content.count(b"b"))


def test_all_three_fates_of_an_unsynced_page_happen() -> None:
    """Lost, kept and torn, over the seeds."""
    fates = set()
    for seed in SEEDS:
        disk, _, path, fd = made(seed)
        disk.write(fd, [b"b" * PAGE], PAGE)
        disk.power_cut(Dice("cut", seed))
        kept = path.read_bytes().count(b"b")
        fates.add("lost" if not kept else "kept" if kept == PAGE else "torn")

    assert fates == {"lost", "kept", "torn"}


def test_a_kill_keeps_the_cache_and_a_failed_fsync_loses_it_silently() -> None:
    """The second fsync returns well and has written nothing: never trust it."""
    disk, _, path, fd = made(1)
    disk.write(fd, [b"b" * PAGE], 0)
    disk.fault = lambda operation, _: OSError(errno.EIO, "bad") if operation == "sync" else None
    with pytest.raises(OSError, match="bad"):
        disk.sync(fd)
    disk.fault = lambda *_: None

    disk.sync(fd)

    assert path.read_bytes()[:PAGE] == b"b" * PAGE
    disk.power_cut(Dice(1))
    assert path.read_bytes()[:PAGE] == b"a" * PAGE
    assert disk.counts["sync EIO"] == 1


def test_a_name_without_fsync_of_its_directory_may_be_lost() -> None:
    """The content was synced; half of the seeds lose the file all the same."""
    kept = 0
    for seed in SEEDS:
        disk, system, path, _ = made(seed)
        other = path.parent / "2.qlog"
        fd = system.open(other, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        disk.write(fd, [b"c"], 0)
        disk.sync(fd)
        disk.power_cut(Dice("cut", seed))
        kept += other.exists()
        assert path.exists()

    assert 0 < kept < len(SEEDS)


def test_power_may_go_inside_a_system_call() -> None:
    """No handler for OSError sees it."""
    disk, _, _, fd = made(1)
    disk.cut_in = "sync"

    with pytest.raises(PowerCut):
        disk.sync(fd)

    assert not isinstance(PowerCut(), Exception)


def test_a_folder_without_fsync_around_it_may_be_lost_with_all_that_was_synced_in_it() -> None:
    """Both fates happen; once the folder around it was synced it stays."""
    fates = set()
    for seed in SEEDS:
        for synced in (False, True):
            disk, system, path, _ = made(seed)
            folder = path.parent / "hour=1"
            folder.mkdir(parents=True)
            with (folder / "a.parquet").open("wb") as file:
                file.write(b"rows")
                system.fsync(file.fileno())
            system.fsync(system.open(folder, os.O_RDONLY | os.O_DIRECTORY))
            if synced:
                system.fsync(system.open(path.parent, os.O_RDONLY | os.O_DIRECTORY))
            disk.power_cut(Dice("cut", seed))
            fates.add((synced, (folder / "a.parquet").exists()))

    assert fates == {(False, False), (False, True), (True, True)}


def test_damage_below_the_page_cache_is_met_by_who_asks_the_disk() -> None:
    """A read has the cached bytes; after DONTNEED those of the platter, of pages that lie in its range."""
    disk, system, path, _ = made(1)
    disk.names[path.text].platter[0] ^= 1
    reader = system.open(path, os.O_RDONLY)
    assert system.pread(reader, 1, 0) == b"a"

    system.posix_fadvise(reader, 0, PAGE - 1, os.POSIX_FADV_DONTNEED)
    system.posix_fadvise(reader, 1, 2 * PAGE, os.POSIX_FADV_DONTNEED)
    assert system.pread(reader, 1, 0) == b"a"

    system.posix_fadvise(reader, 0, PAGE, os.POSIX_FADV_DONTNEED)
    assert system.pread(reader, 1, 0) == b"`"
    assert path.read_bytes()[1:] == b"a" * (2 * PAGE - 1)


@pytest.mark.parametrize("length", [2 * PAGE, 0])
def test_a_page_not_synced_yet_is_written_over_what_rotted_below_it(length: int) -> None:
    """As the kernel does sooner or later; DONTNEED begins with it. No power cut loses the page then."""
    disk, system, path, fd = made(1)
    system.ftruncate(fd, PAGE + 10)
    disk.write(fd, [b"c"], PAGE)
    disk.names[path.text].platter[PAGE + 1] ^= 1
    reader = system.open(path, os.O_RDONLY)

    for _ in range(2):  # dirty, then clean
        system.posix_fadvise(reader, 0, length, os.POSIX_FADV_DONTNEED)
        assert system.pread(reader, 10, PAGE) == b"c" + b"a" * 9
    disk.power_cut(Dice("cut", 1))
    assert path.read_bytes()[PAGE : PAGE + 10] == b"c" + b"a" * 9


@pytest.mark.parametrize(("operation", "kills"), [("rename", False), ("unlink", True)])
def test_the_machine_goes_off_in_the_middle_of_a_call_on_names(operation: str, kills: bool) -> None:
    """Once; the name is as it was."""
    disk, _, path, _ = made(1)
    disk.cut_in, disk.cut_kills = operation, kills

    with pytest.raises(PowerCut):
        path.rename(path.parent / "2.qlog") if operation == "rename" else path.unlink()

    assert path.exists()
    assert disk.counts[f"{'kill' if kills else 'cut'} in {operation}"] == 1
    path.rename(path.parent / "2.qlog")
    assert not path.exists()


def test_what_was_cut_off_is_zeros_when_the_file_grows_again() -> None:
    """On the platter too, once synced: no old bytes come back."""
    disk, system, path, fd = made(3)

    system.ftruncate(fd, 100)
    system.ftruncate(fd, 2 * PAGE)
    disk.sync(fd)
    disk.power_cut(Dice("cut", 3))

    assert path.read_bytes() == b"a" * 100 + bytes(2 * PAGE - 100)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_torn_last_page_moves_no_bytes(seed: int) -> None:
    """A shorter file over a longer one: each byte is the new one, or the old one of its place."""
    disk, system, path, fd = made(seed)
    places = bytes(range(256)) * (2 * PAGE // 256)
    disk.write(fd, [places], 0)
    disk.sync(fd)

    system.ftruncate(fd, PAGE)
    disk.write(fd, [b"b" * 1000], PAGE)
    disk.power_cut(Dice("cut", seed))

    content = path.read_bytes()
    assert content[:PAGE] == places[:PAGE]
    allowed = zip(content[PAGE:], places[PAGE:], strict=False)
    assert all(one in (ord("b"), old) for one, old in allowed)


def test_allocating_never_cuts() -> None:
    """As posix_fallocate: a file that is longer stays so."""
    disk, _, path, fd = made(1)

    disk.allocate(fd, 0, PAGE)
    assert path.read_bytes() == b"a" * 2 * PAGE
    disk.allocate(fd, PAGE, 2 * PAGE)
    assert path.read_bytes() == b"a" * 2 * PAGE + bytes(PAGE)
