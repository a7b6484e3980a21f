"""The fuzzer's targets on every input that once broke one, and on a few fresh ones: see `make fuzz`."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from ingestor.parsers import json_document, json_lines
from tests.fuzz.targets import targets

KEPT = sorted((Path(__file__).parent / "kept").glob("[a-z]*"))
TARGETS = targets()
FRESH = 60


@pytest.fixture(autouse=True, scope="module")
def _small_bodies_too() -> Iterator[None]:
    """The kernel is asked for bodies of any size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "KERNEL_BYTES", 0)
        patch.setattr(json_document, "KERNEL_BYTES", 0)
        yield


@pytest.mark.parametrize("file", KEPT, ids=lambda file: file.name)
def test_what_once_failed(file: Path) -> None:
    """Each kept input, on the target that its name begins with."""
    TARGETS[file.name.rpartition("-")[0]].run(file.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_fresh_inputs(name: str) -> None:
    """So that no target rots; the real run is `make fuzz`."""
    for number in range(FRESH):
        data = TARGETS[name].make(Random(f"test/{number}"))
        TARGETS[name].run(data)
