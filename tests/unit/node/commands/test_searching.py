"""From options to query parameters, and from answers to exit codes."""

import pytest

from node.cli import parse
from node.cli_errors import CliError
from node.commands.searching import _limit, parameters, partial


def test_options_become_the_parameters_of_the_query() -> None:
    """interface.md: the names on both sides."""
    words = "--service pay --service cart --level error --since 1h --trace ab --field status=500"
    more = "--field path=/a=b --order asc --fields message --consistency all"
    options = parse(["query", "timeout OR refused", *words.split(), *more.split()])

    assert parameters(options) == {
        "q": "timeout OR refused", "service": "pay,cart", "level": "error", "since": "1h",
        "trace_id": "ab", "status": "500", "path": "/a=b", "order": "asc", "fields": "message",
        "consistency": "all",
    }  # fmt: skip


def test_stats_have_their_defaults() -> None:
    """Counted by service and level."""
    assert parameters(parse(["stats"])) == {"by": "service,level", "agg": "count"}


@pytest.mark.parametrize("pair", ["status", "=5", "limit=5", "q=x", "trace_id=1"])
def test_fields_that_are_options_are_refused(pair: str) -> None:
    """`--field limit=5` would quietly change the limit."""
    with pytest.raises(CliError):
        parameters(parse(["query", "--field", pair]))


def test_limits() -> None:
    """A number from 1, or all."""
    assert (_limit("1"), _limit("all")) == (1, None)
    for wrong in ("0", "-1", "x", "", "1.5"):
        with pytest.raises(CliError):
            _limit(wrong)


def test_a_partial_answer_is_exit_code_3_and_says_what_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """design.md: complete or honest."""
    assert partial({"complete": True, "missing": []}) == 0
    assert partial({"complete": False, "missing": [{"shard": 7}]}) == 3
    assert '{"shard": 7}' in capsys.readouterr().err
