"""The laboratory by itself: disks that lose, fill and stall, wires that are cut one way and healed.

In a process of its own under `unshare`, as the suite does; skipped, with the reason, where there can be none.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from chaos import lab

pytestmark = [pytest.mark.chaos]

DISKS = """
import sys, threading
from pathlib import Path
from chaos import disks
folder = Path(sys.argv[1])
assert disks.reason_against(folder) == "", disks.reason_against(folder)
disk = disks.Disk(folder / "a.img", folder / "a", 64 << 20)
disk.make()
kept = disk.mount / "kept"
with kept.open("wb") as file:
    file.write(b"synced")
    file.flush()
    import os
    os.fsync(file.fileno())
disk.cut_power()
try:
    (disk.mount / "late").write_bytes(b"x")
    raise SystemExit("a write after the cut was taken")
except OSError:
    pass
disk.detach()
disk.attach()
assert disk.witness_lost()
assert kept.read_bytes() == b"synced"
disk.fill()
try:
    (disk.mount / "more").write_bytes(bytes(5000))
    raise SystemExit("there is still room")
except OSError as error:
    assert error.errno == 28, error
disk.free()
(disk.mount / "more").write_bytes(bytes(5000))
disk.freeze(20)
done = threading.Event()
writer = threading.Thread(target=lambda: ((disk.mount / "slow").write_bytes(b"x"), done.set()))
writer.start()
assert not done.wait(0.3), "a frozen disk took a write"
disk.thaw()
assert done.wait(10)
writer.join()
disk.close()
"""

WIRES = """
import subprocess, sys
from pathlib import Path
from chaos import lab_net
net = lab_net.LabNet(Path(sys.argv[1]), ("a", "b", "c"))
net.make()
code = "import http.server as h; h.HTTPServer(('', 8000), h.BaseHTTPRequestHandler).serve_forever()"
servers = [subprocess.Popen([*net.within(n), sys.executable, "-c", code]) for n in ("a", "b", "c")]
try:
    from chaos.faults.base import wait_for
    pairs = [(x, y) for x in "abc" for y in "abc" if x != y]
    assert wait_for(lambda: all(net.reaches(x, y, 8000) for x, y in pairs), 20, 0.2)
    net.cut("a", "b")
    assert not net.reaches("a", "b", 8000)
    assert net.reaches("a", "c", 8000) and net.reaches("c", "b", 8000)
    net.heal()
    assert wait_for(lambda: net.reaches("a", "b", 8000), 5, 0.2)
finally:
    for one in servers:
        one.kill()
        one.wait()
    net.close()
"""


def in_lab(script: str, folder: Path) -> None:
    """Runs it in a laboratory of its own."""
    reason = lab.reason_against_entering()
    if reason:
        pytest.skip(reason)
    words = ["unshare", "--mount", "--net", "--", sys.executable, "-c", script, str(folder)]
    done = subprocess.run(
        words, env=lab.environment(), capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_disk_loses_what_was_not_synced_fills_up_and_stalls(tmp_path: Path) -> None:
    """What was synced outlives the cut; after it, and when full, writes fail; frozen ones wait."""
    in_lab(DISKS, tmp_path)


def test_a_wire_is_cut_between_two_and_whole_again(tmp_path: Path) -> None:
    """Others still reach both; after the heal so do they each other."""
    in_lab(WIRES, tmp_path)


def test_what_a_machine_lacks_is_a_reason_to_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never a pass."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert lab.reason_against_entering() == "needs root"
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert lab.reason_against((lab.STRACE,)) == "strace is not installed"
    assert lab.reason_against((lab.DISK,)) == "mkfs.ext4 is not installed"
