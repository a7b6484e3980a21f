"""Names that a request gives itself: what may be one, and what the refusal says."""

import pytest

from ingestor.validate import check_identifier
from records.errors import InvalidRequest


@pytest.mark.parametrize("name", ["api", "a/b@c", "urn:x", "../etc", "x" * 128])
def test_a_service_may_be_a_path(name: str) -> None:
    """It is never used as one."""
    assert check_identifier(name, "service") == name


@pytest.mark.parametrize(
    ("what", "expected"), [("service", "_ . : - / @ are"), ("tenant", "_ . : - are")]
)
@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a\n", "x" * 129, "\ud800", None, 7, ["a"]])
def test_the_refusal_says_what_may_be_a_name(name: object, what: str, expected: str) -> None:
    """A tenant has fewer letters to choose from."""
    with pytest.raises(
        InvalidRequest, match=f"1 to 128 of A-Z a-z 0-9 {expected} expected"
    ) as caught:
        check_identifier(name, what)
    assert caught.value.details["reason"] == f"bad_{what}"


def test_a_tenant_is_no_path() -> None:
    """Unlike a service, it may hold no slash."""
    with pytest.raises(InvalidRequest, match="tenant"):
        check_identifier("a/b", "tenant")
