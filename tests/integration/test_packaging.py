"""Guard 4 of the packaging: both wheels, built and unpacked elsewhere, work from `/` without the checkout.

Nothing is downloaded: the build back end is in the lock, the dependencies are this environment's.
"""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.support.source import ROOT, packages

pytestmark = [pytest.mark.integration, pytest.mark.beside, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Distribution name -> its wheel."""
    folder = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*command, str(ROOT), str(ROOT / "client")], check=True, timeout=170)
    return {wheel.name.split("-")[0]: wheel for wheel in folder.glob("*.whl")}


def top_folders(wheel: Path) -> set[str]:
    """The folders at the top of a wheel, but for its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    return {name for name in tops if not name.endswith(".dist-info")}


def test_the_wheels_hold_their_packages_and_nothing_else(wheels: dict[str, Path]) -> None:
    """The client alone is what others import; the server brings its ten."""
    assert set(wheels) == {"quorumlog", "quorumlog_server"}
    assert top_folders(wheels["quorumlog"]) == {"quorumlog"}
    assert top_folders(wheels["quorumlog_server"]) == set(packages())


def test_the_server_must_not_be_uploaded(wheels: dict[str, Path]) -> None:
    """Its package names belong to others: guard 2."""
    with zipfile.ZipFile(wheels["quorumlog_server"]) as archive:
        name = next(one for one in archive.namelist() if one.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()

    assert "Classifier: Private :: Do Not Upload" in metadata


def test_installed_elsewhere_it_runs_from_the_root(wheels: dict[str, Path], tmp_path: Path) -> None:
    """The console script and the client's import; the packages come from there, not from here."""
    for wheel in wheels.values():
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(tmp_path)
    python = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    # a folder on PYTHONPATH is no site folder: the checkout's editable install is not seen through it
    paths = [str(tmp_path), sysconfig.get_path("purelib")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    code = (
        "import quorumlog, node.install_check as check; from node.cli import main;"
        " check.check_installation(); print(quorumlog.__file__); main(['version'])"
    )

    done = subprocess.run(
        [str(python), "-c", code],
        cwd="/", env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    where, version = done.stdout.splitlines()
    assert Path(where).is_relative_to(tmp_path)
    assert version == "quorumlog 0.1.0"
