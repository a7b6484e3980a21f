"""Guard 3 of the packaging: all root packages come from one folder, or the process does not start.

The names of our packages (`ring`, `query`, `node` …) belong to unrelated public packages as well, and an
installer overwrites without a word. Half of ours with half of theirs would fail late and oddly.
"""

import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path

from node.cli_errors import CliError

PACKAGES = (
    "records", "runtime", "ring", "storage", "cluster", "ingestor", "query", "dashboard", "node",
    "chaos",
)  # fmt: skip


def folder_of(package: str) -> Path | None:
    """The folder that holds a package; None if it is not there, or is a single file."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))).resolve().parent


def strangers(
    home: Path,
    packages: Iterable[str] = PACKAGES,
    folder: Callable[[str], Path | None] = folder_of,
) -> list[str]:
    """What is wrong with where the packages come from, one sentence each; empty if nothing."""
    found = ((name, folder(name)) for name in packages)
    return [
        f"package {name!r} comes from {place or 'nowhere'}, not from {home}"
        for name, place in found
        if place != home
    ]


def check_installation() -> None:
    """Raises if another distribution has replaced one of our packages.

    Raises:
        CliError: names each package and where it comes from.
    """
    wrong = strangers(Path(__file__).resolve().parent.parent)
    if wrong:
        raise CliError(
            "; ".join(wrong),
            "install quorumlog-server into an environment of its own, beside no other packages",
        )
