"""Admission: refused before memory is used, given back whatever happens."""

import asyncio

import pytest

from ingestor.admission import Admission
from ingestor.write_settings import WriteSettings
from records.errors import InvalidSettings, Overloaded
from runtime.clock import SystemClock
from runtime.metrics import Metrics


def admission(**numbers: int) -> tuple[Admission, Metrics]:
    """With small numbers."""
    metrics = Metrics()
    return Admission(WriteSettings(**numbers), SystemClock(), metrics), metrics  # type: ignore[arg-type]


async def test_beyond_the_bytes_a_request_is_refused_with_a_time() -> None:
    """100 bytes: 60 and 40 fit, one more does not; after one left it does."""
    gate, metrics = admission(admitted_bytes=100)
    async with gate.acquire(60):
        async with gate.acquire(40):
            with pytest.raises(Overloaded) as caught:
                async with gate.acquire(1):
                    pytest.fail("admitted")
            assert caught.value.retry_after_seconds == 1
            assert metrics.snapshot()["quorumlog_admission_bytes"] == 100
        async with gate.acquire(40):
            pass

    assert metrics.snapshot()["quorumlog_admission_bytes"] == 0
    assert metrics.snapshot()['quorumlog_admission_refused_total{budget="bytes"}'] == 1


async def test_beyond_the_requests_too() -> None:
    """Tiny requests cost memory as well."""
    gate, metrics = admission(admitted_requests=2)
    async with gate.acquire(0), gate.acquire(0):
        with pytest.raises(Overloaded):
            async with gate.acquire(0):
                pytest.fail("admitted")
        assert metrics.snapshot()["quorumlog_admission_requests"] == 2
        assert metrics.snapshot()["quorumlog_admission_age_seconds"] >= 0

    assert metrics.snapshot()["quorumlog_admission_requests"] == 0


async def test_a_giant_is_admitted_when_alone() -> None:
    """Else a body within its own limit could never be taken."""
    gate, _ = admission(admitted_bytes=100)
    async with gate.acquire(500):
        with pytest.raises(Overloaded):
            async with gate.acquire(1):
                pytest.fail("admitted")


async def test_errors_and_cancellation_give_back() -> None:
    """The budget must not leak away."""
    gate, metrics = admission(admitted_bytes=100)
    with pytest.raises(KeyError):
        async with gate.acquire(60):
            raise KeyError

    async def held() -> None:
        async with gate.acquire(60):
            await asyncio.Event().wait()

    task = asyncio.create_task(held())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])

    assert metrics.snapshot()["quorumlog_admission_bytes"] == 0
    assert metrics.snapshot()["quorumlog_admission_requests"] == 0


def test_settings_are_checked_at_start() -> None:
    """A bound of nothing, or a target beyond the limit, is said before any request comes."""
    with pytest.raises(InvalidSettings):
        WriteSettings(pending_bytes=0)
    with pytest.raises(InvalidSettings):
        WriteSettings(block_target_rows=10, block_max_rows=5)
    with pytest.raises(InvalidSettings, match="filters must be one of on, auto, off"):
        WriteSettings(filters="yes")
