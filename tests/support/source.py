"""The source as data, for the tests of the source: files, imports, the project's settings."""

import ast
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@cache
def project() -> dict[str, Any]:
    """pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@cache
def packages() -> tuple[str, ...]:
    """The root packages that are shipped."""
    return tuple(project()["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])


@cache
def product_files() -> tuple[Path, ...]:
    """Every Python file of the product: the server's packages and the client."""
    folders = [ROOT / name for name in packages()] + [ROOT / "client" / "quorumlog"]
    return tuple(sorted(file for folder in folders for file in folder.rglob("*.py")))


@cache
def tracked_files() -> tuple[Path, ...]:
    """Every text file that belongs to the project, by name, outside of hidden and made folders."""
    made = {".venv", ".git", "data", "__pycache__", "out", ".hypothesis", ".pytest_cache"}
    made |= {".ruff_cache", ".import_linter_cache", "build", "dist", "target"}
    kinds = {".py", ".md", ".toml", ".yml", ".yaml", ".json", ".lock", ".txt", ".cfg", ".env", ""}
    return tuple(
        sorted(
            file
            for file in ROOT.rglob("*")
            if file.suffix in kinds
            and file.is_file()
            and not made & set(file.relative_to(ROOT).parts)
            and not any(part.endswith(".egg-info") for part in file.parts)
        )
    )


@cache
def tree(file: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


@cache
def nodes(file: Path) -> tuple[ast.AST, ...]:
    """All nodes of a file's syntax tree. Kept: walking the trees anew for each question took seconds."""
    return tuple(ast.walk(tree(file)))


def imports(file: Path) -> Iterator[str]:
    """The full names of the modules that a file imports, wherever in it."""
    for node in nodes(file):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module


def texts(file: Path) -> Iterator[str]:
    """Every text constant of a file."""
    for node in nodes(file):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@cache
def documentation() -> str:
    """All pages of docs/ and the README, one after the other."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return "\n".join(page.read_text(encoding="utf-8") for page in pages)
