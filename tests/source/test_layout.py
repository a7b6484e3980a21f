"""The shape of the source: sizes, packages, imports, the one home of each outside library."""

import ast
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from cluster.cluster_http import VERSION as TOLD_BY_NODES
from node.commands.inspecting import VERSION as TOLD_BY_COMMAND
from node.install_check import PACKAGES
from tests.support.source import ROOT, imports, nodes, packages, product_files, project, tree

#: Longer files want to be split (layout.md aims at 150 lines, and splits past 400).
LINES_MAX = 500
FUNCTION_LINES_MAX = 70

#: Where an outside library may be imported; others go through that module, so it can be replaced.
HOMES = {
    "pysyncobj": ("cluster/consensus_*.py",),
    "mmh3": ("ring/hashing.py",),
    "msgpack": ("records/envelope.py",),
    "sortedcontainers": ("ring/ring.py", "records/intervals.py"),
    "tenacity": ("runtime/retry.py", "client/quorumlog/*.py"),
    "prometheus_client": ("runtime/metrics.py",),
    "toxiproxy": ("chaos/net.py",),
    "zstandard": ("ingestor/decompress.py", "node/send_source.py"),
    "cryptography": ("cluster/consensus_*.py",),
    "rich": ("node/*.py", "node/commands/*.py"),
    "aiohttp": (
        "cluster/*http*.py",
        "cluster/server.py",
        "ingestor/listeners/*.py",
        "query/http.py",
        "query/sql_http.py",
        "query/facets.py",
        "query/context.py",
        "query/tail.py",
        "dashboard/*.py",
        "node/http_port.py",
        "node/routes.py",
        "node/cli_api.py",
        "node/files_http.py",
        "node/retaining.py",
        "node/retention_http.py",
        "node/splits_http.py",
        "client/quorumlog/*.py",
    ),
    "duckdb": ("query/sql_child.py",),
    "quorumlog_native": ("ingestor/parsers/native.py", "records/native.py"),
    "uvloop": ("node/*.py", "node/commands/*.py"),
}


def name_of(file: Path) -> str:
    """The path in the project."""
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", product_files(), ids=name_of)
def test_files_and_functions_are_short_enough_to_be_read(file: Path) -> None:
    """A file that grows past the limit is split by what it does, not by lines."""
    assert len(file.read_text(encoding="utf-8").splitlines()) <= LINES_MAX
    for node in nodes(file):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("file", product_files(), ids=name_of)
def test_each_module_says_what_it_is_for(file: Path) -> None:
    """A module opens with its docstring."""
    assert ast.get_docstring(tree(file)), "no docstring"


@pytest.mark.parametrize("library", HOMES)
def test_an_outside_library_has_one_home(library: str) -> None:
    """layout.md, section 2."""
    users = [
        name_of(file)
        for file in product_files()
        if any(name.split(".")[0] == library for name in imports(file))
    ]

    strays = [name for name in users if not any(fnmatch(name, home) for home in HOMES[library])]
    assert strays == []


def test_the_packages_are_the_root_folders() -> None:
    """Guard 4 of the packaging: what has an __init__.py is shipped, and nothing else."""
    found = {init.parent.name for init in ROOT.glob("*/__init__.py")}

    assert found == set(packages())
    assert set(project()["tool"]["importlinter"]["root_packages"]) == found | {"quorumlog"}


def test_the_installation_check_knows_all_packages() -> None:
    """Guard 3 looks at each of them."""
    assert set(PACKAGES) == set(packages())


def test_import_contracts_hold() -> None:
    """Layers, pure parts, storage's one door, the client alone: as pyproject.toml states them."""
    command = Path(sys.executable).parent / "lint-imports"

    done = subprocess.run(
        [str(command), "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-server.lock"])
def test_locks_have_versions_and_hashes_and_no_address(name: str) -> None:
    """Whoever installs chooses the registry; what it delivers must match the hashes."""
    text = (ROOT / name).read_text(encoding="utf-8")

    assert "://" not in text
    assert not re.search(r"--(index|extra-index|find-links|trusted)", text)
    for entry in re.split(r"\n(?=\S)", text.strip()):
        assert re.match(r"[a-z0-9._-]+(\[[a-z,]+\])?==[\w.!+-]+", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_the_servers_lock_is_a_part_of_the_whole_one() -> None:
    """The image runs what the tests ran."""
    whole, server = (
        set((ROOT / name).read_text(encoding="utf-8").split("\n"))
        for name in ("requirements.lock", "requirements-server.lock")
    )

    assert server <= whole


def test_each_dependency_is_locked() -> None:
    """A dependency that is added to pyproject.toml needs `make lock`."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    locked = set(re.findall(r"^([a-z0-9._-]+)==", lock, re.MULTILINE))
    wanted = list(project()["project"]["dependencies"])
    for extra in project()["project"]["optional-dependencies"].values():
        wanted += extra
    wanted += project()["dependency-groups"]["dev"]

    names = {re.split(r"[\[<>=;! ]", one, maxsplit=1)[0].lower() for one in wanted} - {"quorumlog"}
    assert names <= locked


def test_all_say_the_same_version() -> None:
    """Server, client, command line, /health and image move together."""
    client = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text(encoding="utf-8"))
    compose = yaml.safe_load((ROOT / "docker-compose.cluster.yml").read_text(encoding="utf-8"))
    version = project()["project"]["version"]

    assert client["project"]["version"] == version
    assert version == TOLD_BY_NODES == TOLD_BY_COMMAND
    assert compose["x-node"]["image"] == f"quorumlog-server:{version}"


def test_what_needs_the_machine_to_itself_is_marked_and_lies_in_its_folders() -> None:
    """`make test` runs these folders after all the rest, but for what is marked `beside` there."""
    marks = re.compile(r"pytest\.mark\.(integration|chaos)\b")
    alone = {ROOT / "tests" / "integration", ROOT / "tests" / "chaos"}
    files = (ROOT / "tests").rglob("test_*.py")
    marked = {file: bool(marks.search(file.read_text(encoding="utf-8"))) for file in files}

    assert [
        name_of(file) for file, found in marked.items() if found != (file.parent in alone)
    ] == []
