"""kill -9 under load: nothing acknowledged is lost or doubled, and the others carry on.

Real processes on loopback; what was acknowledged is compared with what is read, by row.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cluster import LocalCluster, eventually, http, running_cluster
from tests.support.load import Ledger, agent, check_nothing_lost_or_doubled, read_messages

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


#: What is asked throughout: a page of a search, and folds over everything.
QUESTIONS = ("/query?limit=1&search=batch0", "/query/stats", "/query/histogram?by=service&step=1s")


async def reader(urls: list[str], over: asyncio.Event, ledger: Ledger, answers: list[dict]) -> None:
    """Asks again and again through living nodes; keeps what each answer said of itself.

    `least`, `most`: the rows acked before a count was asked for, and those sent until it was answered.
    """
    turn = 0
    while not over.is_set():
        for path in QUESTIONS:
            turn += 1
            least = len(ledger.acked)
            try:
                url = f"{urls[turn % len(urls)]}{path}"
                status, body, _ = await asyncio.to_thread(http, "GET", url, None, None, 10.0)
            except OSError:
                continue  # this one was killed just now
            if status == 503 and body["error"]["code"] == "NOT_READY":
                continue  # this one has just been started, and says so
            told = {"status": status, "question": path, "missing": body if status != 200 else ""}
            if status == 200:
                told |= {"complete": body["complete"], "missing": body["missing"]}
            if status == 200 and path == "/query/stats":
                count = body["rows"][0]["count"] if body["rows"] else 0
                told |= {"least": least, "count": count, "most": len(ledger.attempted)}
            answers.append({"complete": False, **told})
        await asyncio.sleep(0.05)


async def load_and_faults(
    cluster: LocalCluster,
    faults: Callable[[], None],
    ledger: Ledger,
    answers: list[dict],
    first_agent: int = 0,
) -> None:
    """Four agents and a reader on all nodes as long as `faults` runs."""
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(first_agent, first_agent + 4):
            group.create_task(agent(number, cluster.urls, over, ledger))
        group.create_task(reader(cluster.urls, over, ledger, answers))
        try:
            await asyncio.to_thread(faults)
        finally:
            over.set()


def acked_more(ledger: Ledger, rows: int) -> None:
    """Returns when so many more rows are acknowledged."""
    wanted = len(ledger.acked) + rows
    eventually(lambda: len(ledger.acked) >= wanted, seconds=30, every=0.02)


def asked_more(answers: list[dict], count: int) -> None:
    """Returns when so many more questions are answered."""
    wanted = len(answers) + count
    eventually(lambda: len(answers) >= wanted, seconds=30, every=0.02)


async def test_killing_any_one_node_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Each node in turn is killed under load and started again; agents resend on any doubt.

    With W=2 of 3 every append is acknowledged and every query is complete throughout.
    """
    ledger, answers = Ledger(), []
    with running_cluster(tmp_path / "c") as cluster:

        def faults() -> None:
            for node in ("node1", "node2", "node3"):
                acked_more(ledger, 1_000)
                cluster.kill(node)
                acked_more(ledger, 1_000)
                asked_more(answers, 2 * len(QUESTIONS))
                cluster.start_one(node)
            acked_more(ledger, 1_000)

        await load_and_faults(cluster, faults, ledger, answers)
        for url in cluster.urls:
            check_nothing_lost_or_doubled(ledger, await read_messages(url))

    assert ledger.resends > 0, "no fault bit"
    assert len(ledger.acked) >= 5_000
    assert ledger.refused == [], f"living nodes refused {len(ledger.refused)}: {ledger.refused[:3]}"
    assert ledger.acked == ledger.attempted
    incomplete = [one for one in answers if not one["complete"]]
    assert not incomplete, f"{len(incomplete)} of {len(answers)} answers: {incomplete[:3]}"
    asked = Counter(one["question"] for one in answers)
    assert all(asked[path] for path in QUESTIONS), asked
    wrong = [
        one
        for one in answers
        if not one.get("least", 0) <= one.get("count", 0) <= one.get("most", 0)
    ]
    assert not wrong, f"counts less than acked or more than sent: {wrong[:3]}"
    print(
        f"\n{len(ledger.acked)} rows acked, the longest wait for an ack {ledger.longest_ack():.2f} s"
    )


async def test_killing_all_nodes_at_once_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """All three die in mid-load, three times over; after each restart all acked rows are there."""
    ledger = Ledger()
    with running_cluster(tmp_path / "c") as cluster:
        for cycle in range(3):

            def faults() -> None:
                acked_more(ledger, 1_000)
                cluster.kill("node1", "node2", "node3")
                cluster.start()
                acked_more(ledger, 200)

            await load_and_faults(cluster, faults, ledger, [], first_agent=10 * cycle)
            check_nothing_lost_or_doubled(ledger, await read_messages(cluster.urls[0]))

    assert ledger.resends > 0, "no fault bit"
    assert len(ledger.acked) >= 3_000
