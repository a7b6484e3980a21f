"""Guard 3: all root packages come from one folder."""

from pathlib import Path

import pytest

from node import install_check
from node.cli_errors import CliError
from node.install_check import PACKAGES, check_installation, folder_of, strangers


def test_this_checkout_is_in_order() -> None:
    """All ten packages lie side by side."""
    check_installation()
    assert {folder_of(name) for name in PACKAGES} == {Path(__file__).resolve().parents[3]}


def test_a_package_from_elsewhere_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says which package, where it comes from, and where it should."""
    home = Path("/opt/q")
    other = {"ring": Path("/site-packages"), "query": None}

    wrong = strangers(home, ("records", "ring", "query"), lambda name: other.get(name, home))

    assert wrong == [
        "package 'ring' comes from /site-packages, not from /opt/q",
        "package 'query' comes from nowhere, not from /opt/q",
    ]
    monkeypatch.setattr(install_check, "strangers", lambda _: wrong)
    with pytest.raises(CliError, match="'ring' comes from /site-packages"):
        check_installation()
