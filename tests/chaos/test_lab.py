"""The laboratory by itself: disks that lose, fill and stall, wires that are cut one way and healed.

In a process of its own under `unshare`, as the suite does; skipped, with the reason, where there can be none.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from chaos import lab
from chaos.faults import memory

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


LOSS = """
import socket, sys
from pathlib import Path
from chaos import lab, lab_loss
lab.open_loopback()
if reason := lab_loss.reason_against(Path(sys.argv[1])):
    print(reason)
    raise SystemExit
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.bind(("127.0.0.1", 0))
receiver.settimeout(1)
def arrive(source):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((source, 0))
        count = 0
        for _ in range(1000):
            sender.sendto(b"x", receiver.getsockname())
            if lab_loss.count()[1] == lost[0]:
                receiver.recv(9)
                count += 1
            lost[0] = lab_loss.count()[1]
        return count
lost = [0]
lab_loss.put(5, "127.0.0.2")
got = arrive("127.0.0.1")
met, dropped = lab_loss.count()
assert met == 1000 and dropped == 1000 - got, (met, dropped, got)
assert 120 <= dropped <= 280, dropped
assert arrive("127.0.0.2") == 1000, "its own packets are not touched"
try:
    lab_loss.put(5, "127.0.0.2")
    raise SystemExit("twice")
except OSError as error:
    assert error.errno == 17
lab_loss.remove()
lab_loss.put(1, "127.0.0.2")
assert lab_loss.count() == (0, 0)
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
    if done.stdout:
        pytest.skip(done.stdout)


def test_a_disk_loses_what_was_not_synced_fills_up_and_stalls(tmp_path: Path) -> None:
    """What was synced outlives the cut; after it, and when full, writes fail; frozen ones wait."""
    in_lab(DISKS, tmp_path)


def test_a_wire_is_cut_between_two_and_whole_again(tmp_path: Path) -> None:
    """Others still reach both; after the heal so do they each other."""
    in_lab(WIRES, tmp_path)


def test_one_packet_in_so_many_is_lost_and_counted(tmp_path: Path) -> None:
    """Of those from elsewhere; each that does not arrive is in the kernel's count."""
    in_lab(LOSS, tmp_path)


def test_a_process_in_a_group_gets_no_more_memory() -> None:
    """What it asks for beyond the limit is counted, and it is killed; afterwards nothing is left."""
    if reason := memory.reason_against(Path()):
        pytest.skip(reason)
    code = "input(); bytearray(64 << 20)"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as child:
        group = memory.Group(f"quorumlog-test-{child.pid}", 16 << 20)
        try:
            group.add(child.pid)
            assert group.met() == 0
            child.communicate(b"\n", timeout=20)
            assert group.met() > 0
        finally:
            child.kill()
            group.close()

    assert child.returncode == -9
    assert not group.path.exists()


def test_what_a_machine_lacks_is_a_reason_to_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never a pass."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert lab.reason_against_entering() == "needs root"
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert lab.reason_against((lab.STRACE,)) == "strace is not installed"
    assert lab.reason_against((lab.DISK,)) == "mkfs.ext4 is not installed"
