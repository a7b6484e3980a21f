"""Addresses of a cluster that is not ours."""

import pytest

from chaos.remote import RemoteCluster
from node.cli_errors import USAGE, CliError


@pytest.mark.parametrize(
    "address",
    ["https://a:1", "http://a:99999", "http://a:x", "http://:80", "http://a:0", "http://a/logs"],
)
def test_what_is_no_address_is_refused_in_words(address: str) -> None:
    """Nobody is asked; it is a wrong use of the command, no crash."""
    with pytest.raises(CliError, match="is no http://HOST:PORT") as caught:
        RemoteCluster([address])

    assert caught.value.code == USAGE
