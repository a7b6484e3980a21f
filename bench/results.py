"""Where results go: JSON files, each with the machine it comes from, written whole or not at all."""

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import measure

ROOT = Path(__file__).resolve().parent.parent
#: Not in the repository; a result worth citing goes to bench/results by `--out`.
OUT = ROOT / "bench" / "out"


def head() -> dict[str, Any]:
    """When, where and of which commit."""
    asked = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": done.stdout.strip() or "unknown",
        "machine": measure.machine(),
    }


def write(file: Path, found: dict[str, Any]) -> None:
    """Replaces `file`; a reader never sees half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(".tmp")
    fresh.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    os.replace(fresh, file)


def read(file: Path) -> dict[str, Any] | None:
    """What `file` says; None if it is not there."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def plain(value: Any) -> Any:
    """`value` as it comes back from a file: tuples are lists."""
    return json.loads(json.dumps(value))
