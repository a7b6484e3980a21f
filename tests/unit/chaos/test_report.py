"""What a run says of itself: to a person, to a program, to the ledger; and when it fails."""

import json
from dataclasses import replace

from chaos.checkers import Verdict, Worth, check, worth
from chaos.history import History
from chaos.report import as_json, as_text, commit_of_source, ledger_line
from chaos.runner import Run
from chaos.scenarios import scenarios
from tests.unit.chaos.histories import clean, everything

FIGURES = {
    "rows_acked": 45, "rows_sent": 45, "requests": 8, "resends": 1, "repeats": 2, "reads": 3,
    "longest_ack_seconds": 0.5, "reads_complete": 3, "reads_partial": 0, "reads_unanswered": 0,
    "rows_in_bulk": 0, "read_back_seconds": 1.0, "judged_seconds": 0.1,
    "rows_lost": 0, "rows_doubled": 0, "errors_logged": 0, "errors_examples": [],
}  # fmt: skip


def made(history: History, acked_min: int = 45) -> Run:
    """A run with that history."""
    verdicts = tuple(check(history))
    return Run(
        scenarios()["kill-one"], history, verdicts, worth(history, acked_min), 12.3, dict(FIGURES)
    )


def test_a_good_run_passes_and_says_what_was_not_seen() -> None:
    """Each invariant has its line."""
    run = made(clean())

    text = as_text(run)

    assert run.passed
    assert text.endswith("passed")
    assert "holds     I1 durability: all 45 acknowledged rows" in text
    assert "not seen  I9" in text
    assert "kill node3 for 0.0 s" in text
    assert as_json(run)["passed"] is True
    assert as_json(run)["faults"][0]["proof"] == {"pids": {"node3": 9}}


def test_a_violation_fails_the_run_with_names() -> None:
    """The text names rows and nodes; the ledger names invariants."""
    run = made(clean(rows=[row for row in everything() if row[0] != "agent1:7"]))

    assert not run.passed
    assert "VIOLATED  I1 durability" in as_text(run)
    assert "agent1:7 was acknowledged, node1 does not find it" in as_text(run)
    line = json.loads(ledger_line(run, "abc+", 1_795_000_000_000_000))
    assert line["violated"] == ["I1"]
    assert line["verdict"] == "failed"
    assert line["when"] == "2026-11-18T11:06:40+00:00"


def test_a_run_that_does_not_count_fails_although_all_holds() -> None:
    """It proves nothing, and says why."""
    run = made(clean(), acked_min=46)

    assert not run.passed
    assert "DOES NOT COUNT  45 rows were acknowledged, 46 are needed" in as_text(run)
    assert json.loads(ledger_line(run, "", 0))["counts"] is False


def test_errors_in_the_nodes_logs_are_told() -> None:
    """They are a note, not a verdict."""
    run = made(clean())
    noisy = replace(run, figures={**FIGURES, "errors_logged": 2, "errors_examples": ["boom"]})

    assert "nodes logged 2 errors" in as_text(noisy)
    assert "boom" in as_text(noisy)
    assert noisy.passed


def test_every_status_has_a_mark_of_its_own() -> None:
    """A verdict that is not known by name must not look like one that holds."""
    odd = Verdict("X1", "odd", "strange", "?")
    run = replace(made(clean()), verdicts=(odd,), worth=Worth(True, ()))

    assert "not seen  X1" in as_text(run)


def test_the_commit_is_short_or_nothing() -> None:
    """Of a checkout; elsewhere the ledger says nothing rather than something wrong."""
    assert len(commit_of_source()) <= 20
