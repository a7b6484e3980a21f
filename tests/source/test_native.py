"""The native kernel is optional and portable: what its build says, and what it may not use."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.source import ROOT

NATIVE = ROOT / "native"
#: One machine's instructions: a library may choose them while it runs, we may not when we build.
UNPORTABLE = re.compile(
    r"target-cpu|target-feature|target_feature|std::arch|core::arch|_mm\d*_|\basm!"
)


def build(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`native/build` where there is a shell and no cargo."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "dirname", "mktemp", "rm", "grep", "cut", "touch", "cat"):
        found = next(
            Path(part, name) for part in os.defpath.split(":") if part and Path(part, name).exists()
        )
        (tools / name).symlink_to(found)
    environment = {"PATH": str(tools), "PYTHON": sys.executable, "HOME": str(tmp_path)}
    return subprocess.run(
        [str(NATIVE / "build"), *words], env=environment, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip


def test_without_a_toolchain_the_build_says_so_and_goes_on(tmp_path: Path) -> None:
    """`make up` calls it: one line with the reason and what it costs, no stamp, exit code 0."""
    stamp = tmp_path / "stamp"

    done = build(tmp_path, "--stamp", str(stamp))

    assert done.returncode == 0, done.stderr
    assert "not built" in done.stdout
    assert "no cargo" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert not stamp.exists()


def test_who_requires_the_kernel_is_told_that_there_is_none(tmp_path: Path) -> None:
    """`make native`, and CI where cargo is installed."""
    done = build(tmp_path, "--required")

    assert done.returncode == 1
    assert "no cargo" in done.stdout


def test_nothing_is_built_for_one_machine_alone() -> None:
    """No flags and no code for one processor: SIMD comes from crates that look before they use it."""
    files = [
        *NATIVE.glob("src/*.rs"),
        NATIVE / "Cargo.toml",
        NATIVE / "build",
        *NATIVE.glob(".cargo/*"),
    ]
    assert len(files) > 10
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert not UNPORTABLE.search(text), file
        assert "RUSTFLAGS" not in text, file


def test_unsafe_code_stands_in_one_file() -> None:
    """Where vectors are lent to Python; everything that sees a sender's bytes is safe Rust."""
    found = [
        file.name
        for file in sorted((NATIVE / "src").glob("*.rs"))
        if re.search(r"\bunsafe\s*(fn|\{|impl|extern)", file.read_text(encoding="utf-8"))
    ]

    assert found == ["buffer.rs"]
