"""Settings say at start what is out of bounds."""

import pytest

from query.settings import QuerySettings
from records.errors import InvalidSettings


@pytest.mark.parametrize(
    "wrong", [{"running_max": 0}, {"memory_bytes": -1}, {"queue_seconds": 31.0}]
)
def test_wrong_settings_are_refused(wrong: dict[str, float]) -> None:
    """Nothing that would stop every query, and no queue longer than the deadline."""
    with pytest.raises(InvalidSettings):
        QuerySettings(**wrong)  # type: ignore[arg-type]
