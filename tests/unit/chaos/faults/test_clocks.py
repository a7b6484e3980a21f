"""Clocks that jump: what is made of a node that tells its time by half."""

import http.client
from types import SimpleNamespace
from typing import Any

import pytest

from chaos.faults import KINDS, Site
from chaos.processes import FaultDidNotBite


def test_half_an_answer_about_the_time_is_none() -> None:
    """The fault did not bite; the run goes on."""

    def get(*_: object, **__: object) -> Any:
        raise http.client.IncompleteRead(b"{")

    cluster: Any = SimpleNamespace(ids=("node1",), get=get)

    with pytest.raises(FaultDidNotBite, match="does not tell its time"):
        KINDS["clock-jump"].bite(Site(cluster), ("node1",))
