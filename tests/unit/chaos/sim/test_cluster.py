"""The simulation's own judge: what must not look like a run that passed."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

import chaos
from chaos.sim import cluster
from chaos.sim.plan import Plan
from chaos.sim.run import simulate
from chaos.sim.twins import BUGS

PACKAGES = ("cluster", "ingestor", "query", "runtime", "storage")


def test_a_client_that_hangs_is_not_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """L2: an agent that never comes to its end, long after the heal and the end of all troubles."""

    async def agent(*_: Any) -> int:
        await asyncio.Event().wait()
        return 0

    monkeypatch.setattr(cluster, "agent", agent)

    found = simulate(1, Plan())

    assert "L2" in found.invariants


@pytest.mark.parametrize("event", BUGS)
def test_errors_that_count_as_bugs_are_events_of_the_product(event: str) -> None:
    """A text that the product logs no more would be a check that cannot fail."""
    root = Path(chaos.__file__).parent.parent
    sources = [path for name in PACKAGES for path in (root / name).rglob("*.py")]

    assert any(f'log.error("{event}"' in path.read_text() for path in sources)
