"""The tables of docs/operations.md as the source has them: `python -m tests.support.docs_tables`.

With `--write` they are put there: a table of settings for each class that the node fills from its file
(texts from the `#:` comments), and one of the metrics with their help. For whoever adds one.
"""

import ast
import dataclasses
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

from tests.support.source import ROOT, nodes, product_files

#: Tables that the docs explain in their own words.
BY_HAND = ("node", "cluster")
NODE_MODULES = ("node.settings", "node.node")


@cache
def setting_classes() -> dict[str, tuple[type, ...]]:
    """Table of node.toml -> the dataclasses that are built from it, from the calls of `build`."""
    found: dict[str, list[type]] = {}
    for name in NODE_MODULES:
        module = importlib.import_module(name)
        file = ROOT / (name.replace(".", "/") + ".py")
        for node in nodes(file):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "build"
                and isinstance(node.args[0], ast.Name)
                and isinstance(node.args[2], ast.Constant)
            ):
                kind = getattr(module, node.args[0].id)
                kinds = found.setdefault(str(node.args[2].value), [])
                if kind not in kinds:
                    kinds.append(kind)
    return {table: tuple(kinds) for table, kinds in found.items()}


def setting_names() -> Iterator[tuple[str, str]]:
    """(table, name) of each setting."""
    for table, kinds in sorted(setting_classes().items()):
        for kind in kinds:
            yield from ((table, field.name) for field in dataclasses.fields(kind) if field.init)


def comments(kind: type) -> dict[str, str]:
    """Field -> the text of the `#:` comment before it; one comment may stand for several fields."""
    found: dict[str, str] = {}
    text: list[str] = []
    fresh = True
    for line in inspect.getsource(kind).splitlines():
        line = line.strip()
        if line.startswith("#:"):
            text = [line[2:].strip()] if fresh else [*text, line[2:].strip()]
            fresh = False
        elif match := re.match(r"(\w+): .*", line):
            found[match[1]] = " ".join(text)
            fresh = True
        elif not line:
            text, fresh = [], True
    return found


def _default(field: Any) -> str:
    if field.default is not dataclasses.MISSING:
        value = field.default
        if isinstance(value, int) and not isinstance(value, bool) and value >= 1 << 20:
            return f"{value >> 20} MiB" if value % (1 << 20) == 0 else f"{value}"
        return f"`{value!r}`" if isinstance(value, str | tuple | bool) else f"{value}"
    return "" if field.default_factory is dataclasses.MISSING else "empty"


def settings_tables() -> str:
    """All tables of settings."""
    parts = []
    for table, kinds in setting_classes().items():
        if table in BY_HAND:
            continue
        lines = [f"### `[{table}]`", "", "| setting | default | |", "|---|---|---|"]
        for kind in kinds:
            notes = comments(kind)
            for field in dataclasses.fields(kind):
                if field.init:
                    lines.append(
                        f"| `{field.name}` | {_default(field)} | {notes.get(field.name, '')} |"
                    )
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


MAKERS = ("counter", "gauge", "histogram")


@dataclasses.dataclass(frozen=True)
class DeclaredMetric:
    """One metric as the source declares it."""

    name: str
    kind: str
    labels: str
    text: str


def declared_metrics() -> Iterator[DeclaredMetric]:
    """Every metric of the product: calls of a maker of Metrics, or of a short name given to one."""
    for file in product_files():
        aliases: dict[str, str] = {}
        for node in nodes(file):
            if (
                isinstance(node, ast.Assign)
                and isinstance(node.value, ast.Attribute)
                and node.value.attr in MAKERS
                and isinstance(node.targets[0], ast.Name)
            ):
                aliases[node.targets[0].id] = node.value.attr
        for node in nodes(file):
            if isinstance(node, ast.Call) and len(node.args) >= 2:
                name, text = (getattr(arg, "value", None) for arg in node.args[:2])
                if isinstance(name, str) and name.startswith("quorumlog_"):
                    kind = getattr(node.func, "attr", aliases.get(getattr(node.func, "id", "")))
                    yield DeclaredMetric(name, str(kind), _labels(node), str(text))


def metrics_table() -> str:
    """All metrics with their kind, labels and help."""
    rows = {
        one.name: f"| `{one.name}` | {one.kind} | {one.labels} | {one.text.rstrip('.')} |"
        for one in declared_metrics()
    }
    head = ["| metric | kind | labels | |", "|---|---|---|---|"]
    return "\n".join([*head, *(rows[name] for name in sorted(rows))])


def _labels(node: ast.Call) -> str:
    given = [k.value for k in node.keywords if k.arg == "labels"] or list(node.args[2:3])
    if given and isinstance(given[0], ast.List | ast.Tuple):
        return ", ".join(str(getattr(one, "value", "?")) for one in given[0].elts)
    return ""


def write() -> None:
    """Puts the tables into docs/operations.md, between their marks."""
    page = ROOT / "docs" / "operations.md"
    text = page.read_text(encoding="utf-8")
    for name, table in (("settings", settings_tables()), ("metrics", metrics_table())):
        head, mark, rest = text.partition(f"<!-- {name}: ")
        title, _, rest = rest.partition("-->")
        _, end, tail = rest.partition(f"<!-- /{name} -->")
        text = f"{head}{mark}{title}-->\n\n{table}\n\n{end}{tail}"
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if "--write" in sys.argv:
        write()
    else:
        sys.stdout.write(settings_tables() + "\n\n" + metrics_table() + "\n")
