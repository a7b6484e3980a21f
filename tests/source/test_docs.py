"""The docs name what there is: each metric, error code, route, setting, command; and no more than that."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.cli import build_parser
from records.errors import QuorumlogError
from tests.support.docs_tables import declared_metrics, setting_names
from tests.support.source import ROOT, documentation, nodes, product_files

OPERATIONS = ROOT / "docs" / "operations.md"
PROTOCOL = ROOT / "docs" / "protocol.md"
ROUTE_MAKERS = {"get", "post", "put", "delete", "route", "add_get", "add_post", "add_put"}


def calls(names: set[str]) -> Iterator[tuple[Path, ast.Call]]:
    """Calls of methods with these names in the server's packages."""
    for file in product_files():
        if "client" in file.relative_to(ROOT).parts:
            continue
        for node in nodes(file):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in names
            ):
                yield file, node


def first_text(call: ast.Call) -> str | None:
    """The first argument, if it is a text."""
    if call.args and isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str):
        return call.args[0].value
    return None


def metrics() -> set[str]:
    """Names of all metrics that are declared anywhere."""
    return {one.name for one in declared_metrics()}


def routes() -> set[str]:
    """Paths of all routes for clients."""
    found = set()
    for _, call in calls(ROUTE_MAKERS):
        path = first_text(call)
        if path and path.startswith("/") and not path.startswith("/rpc/"):
            found.add(path)
    return found


def error_codes() -> set[str]:
    """Codes of the whole error tree, and of classes that packages add to it."""
    found = {"INTERNAL"}
    for file in product_files():
        if "client" in file.relative_to(ROOT).parts:
            continue
        for node in nodes(file):
            if isinstance(node, ast.ClassDef):
                found |= set(_class_codes(node))
    return found


def _class_codes(node: ast.ClassDef) -> Iterator[str]:
    for line in node.body:
        if (
            isinstance(line, ast.Assign)
            and [getattr(target, "id", "") for target in line.targets] == ["code"]
            and isinstance(line.value, ast.Constant)
        ):
            yield str(line.value.value)


@pytest.mark.parametrize("name", sorted(metrics()))
def test_each_metric_is_described(name: str) -> None:
    """In docs/operations.md, as a row of the table."""
    assert f"| `{name}` |" in OPERATIONS.read_text(encoding="utf-8")


def test_no_metric_is_described_that_is_not_there() -> None:
    """A dashboard built on a name that is gone shows nothing, in silence."""
    described = set(re.findall(r"\| `(quorumlog_\w+)` \|", OPERATIONS.read_text(encoding="utf-8")))
    alerts = set(re.findall(r"quorumlog_\w+", (ROOT / "deploy/alerts.yml").read_text("utf-8")))

    assert described <= metrics()
    assert alerts <= metrics()


@pytest.mark.parametrize("code", sorted(error_codes()))
def test_each_error_code_is_described(code: str) -> None:
    """In docs/protocol.md."""
    assert f"`{code}`" in PROTOCOL.read_text(encoding="utf-8")


def test_the_error_table_tells_the_truth() -> None:
    """Status and `definite` of each code, as the classes have them."""
    kinds: dict[str, type[QuorumlogError]] = {}

    def gather(kind: type[QuorumlogError]) -> None:
        kinds.setdefault(kind.code, kind)
        for child in kind.__subclasses__():
            gather(child)

    gather(QuorumlogError)
    text = PROTOCOL.read_text(encoding="utf-8")
    for codes, status, definite in re.findall(
        r"^\| (`[A-Z_`, ]+`) \| (\d+) \| (yes|no) \|", text, re.M
    ):
        for code in re.findall(r"`([A-Z_]+)`", codes):
            if code in kinds:
                assert (kinds[code].http_status, kinds[code].definite) == (
                    int(status),
                    definite == "yes",
                ), code


@pytest.mark.parametrize("path", sorted(routes()))
def test_each_route_is_described(path: str) -> None:
    """In docs/protocol.md."""
    assert re.search(rf"[ `]{re.escape(path)}[`? ]", PROTOCOL.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("table", "name"), sorted(setting_names()))
def test_each_setting_is_described(table: str, name: str) -> None:
    """In docs/operations.md, under its table's heading."""
    text = OPERATIONS.read_text(encoding="utf-8")
    section = text.partition(f"### `[{table}]`")[2].partition("\n### ")[0].partition("\n## ")[0]

    assert f"| `{name}` |" in section


def test_each_command_is_in_the_readme() -> None:
    """Every command of `quorumlog` is named for users."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    choices = next(
        action.choices
        for action in build_parser()._actions
        if action.dest == "COMMAND" or action.choices
    )
    assert choices
    missing = [name for name in choices if not re.search(rf"`[^`]*\b{name}\b", readme)]

    assert missing == []


def test_the_quick_start_exists() -> None:
    """Each `make x` in the README is a target, each `quorumlog x` a command with those options."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    blocks = "\n".join(re.findall(r"```\w*\n(.*?)```", readme, re.S))

    made = set(re.findall(r"^make ([a-z]+)", blocks, re.M))
    assert made >= {"up"}
    assert made <= targets
    parser = build_parser()
    for line in re.findall(r"^(?:\.venv/bin/)?quorumlog ([^#\n]+)", blocks, re.M):
        parser.parse_args(shlex.split(line.strip()))


def test_links_between_the_docs_lead_somewhere() -> None:
    """Relative links in the README, ARCHITECTURE and docs."""
    pages = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md"]
    pages += sorted((ROOT / "docs").rglob("*.md"))
    for page in pages:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_docs_are_there() -> None:
    """What a user and an operator are promised to find."""
    for name in ("formats", "protocol", "consistency", "operations", "performance"):
        assert (ROOT / "docs" / f"{name}.md").is_file()
    assert len(documentation()) > 10_000
