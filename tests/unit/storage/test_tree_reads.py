"""A store's answers about its trees equal those of the plain model, whatever was put, merged or lost."""

import asyncio
from pathlib import Path

import pytest

from records.errors import StaleRingEpoch
from records.sync import Level, Question, TreeRequest, bits, roots_digest, roots_question
from records.timestamps import MICROS_PER_HOUR
from storage import tree_reads
from storage.service import StorageService
from tests.unit.cluster.trees import Held, Model
from tests.unit.storage.samples import (
    OPTIONS,
    SECOND,
    T0,
    Entry,
    block_of,
    header_of,
    plain,
    row,
    sequenced,
    service_on,
)

HOUR = 3600
SHARDS = [0, 1, 2, 5]
LATER = T0 + 10 * SECOND


def entries() -> list[list[Entry]]:
    """Blocks of entries of one hour, of two, of too many, with skips and several spans, old and recent."""
    wide = Entry([row(0), row(40 * HOUR)], shard=1)
    spans = sequenced(1, 5, shard=2, skips=((9, 9),))
    across = plain(HOUR - 2, 4, shard=1)
    recent = [plain(k, 2, "late", shard=k % 3, received_at=LATER) for k in range(6)]
    forward = plain(50, 1, "clock", shard=0, received_at=LATER + 7200 * SECOND)
    many = [plain(20_000 + k, 1, f"m{k}", shard=k % 2) for k in range(60)]
    return [[wide, spans, across], many, [*recent, forward], [plain(70 * HOUR, shard=0)]]


def model_of(blocks: list[list[Entry]], service: StorageService) -> Model:
    """The same entries as the model holds them; their block is where the store has them now."""
    model = Model()
    holdings = service._engine.holdings
    for entry in (one for block in blocks for one in block):
        header = header_of(entry, 0)
        number = holdings.table.find(header.entry_id)
        assert number is not None
        block = int(holdings.table.rows["block"][number])
        # a clock that is far ahead is not waited for: to the model such an entry is old
        received = header.received_at if header.received_at < LATER + HOUR * SECOND else 0
        model.add(
            Held(header.entry_id, entry.shard, header.hours, header.content_hash, received, block)
        )
    return model


def questions(model: Model) -> tuple[Question, ...]:
    """Every node there is, and some that are not."""
    hours = {(e.shard, hour) for e in model.entries.values() for hour in e.hours} | {(5, 3), (0, 9)}
    spans = {(shard, hour // 64) for shard, hour in hours}
    return (
        roots_question(SHARDS, bytes(16)),
        *(Question(Level.SPANS, shard) for shard in SHARDS),
        *(Question(Level.HOURS, shard, span) for shard, span in sorted(spans)),
        *(Question(Level.BUCKETS, shard, hour) for shard, hour in sorted(hours)),
        *(Question(Level.ENTRIES, shard, hour) for shard, hour in sorted(hours)),
        *(Question(Level.ENTRIES, s, h, bits(range(0, 256, 3))) for s, h in sorted(hours)),
    )


def as_sets(asked: tuple[Question, ...], answers: list[bytes]) -> list:
    """Answers with lists in no order."""
    return [
        sorted(one[at : at + 20] for at in range(0, len(one), 20))
        if question.level is Level.ENTRIES
        else one
        for question, one in zip(asked, answers, strict=True)
    ]


async def filled(directory: Path) -> StorageService:
    """A store with a bit of everything."""
    service = service_on(directory)
    await service.start()
    for number, block in enumerate(entries()):
        await service.put(block_of(number, *block), OPTIONS)
    return service


@pytest.mark.parametrize("until", [LATER, LATER - 1, T0 - 1])
@pytest.mark.parametrize("state", ["put", "restarted"])
async def test_every_answer_is_that_of_the_model(tmp_path: Path, until: int, state: str) -> None:
    """All levels, with recent entries counted, left out, and with nothing settled."""
    service = await filled(tmp_path)
    if state == "restarted":
        await service.stop()
        service = service_on(tmp_path)
        await service.start()
    model = model_of(entries(), service)
    asked = questions(model)

    answers = await service.tree(TreeRequest(asked, until, 1))

    assert as_sets(asked, answers) == as_sets(asked, model.answers(TreeRequest(asked, until, 1)))
    await service.stop()


async def test_roots_that_are_equal_are_not_sent(tmp_path: Path) -> None:
    """The digest that a store would compute over its own roots brings nothing back."""
    service = await filled(tmp_path)
    question = roots_question(SHARDS, bytes(16))
    roots = (await service.tree(TreeRequest((question,), LATER, 1)))[0]
    digest = roots_digest([roots[at : at + 16] for at in range(0, len(roots), 16)])

    again = await service.tree(TreeRequest((roots_question(SHARDS, digest),), LATER, 1))

    assert len(roots) == 16 * len(SHARDS)
    assert again == [b""]
    await service.stop()


async def test_a_damaged_block_makes_its_entries_missing_from_every_answer(tmp_path: Path) -> None:
    """Set aside means absent: the other owners see the difference and this one names it."""
    service = await filled(tmp_path)
    await service._quarantine(1, "for the test")
    blocks = entries()
    model = model_of([one for at, one in enumerate(blocks) if at != 1], service)
    asked = questions(model)

    answers = await service.tree(TreeRequest(asked, LATER, 1))

    assert as_sets(asked, answers) == as_sets(asked, model.answers(TreeRequest(asked, LATER, 1)))
    gone = [header_of(one, 0).entry_id for one in blocks[1]]
    held = [header_of(one, 0).entry_id for one in blocks[0]]
    assert service.absent([*held, *gone]) == gone
    await service.stop()


async def test_a_long_reply_is_cut_after_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least one answer, then as many as fit; no answer is cut itself."""
    monkeypatch.setattr(tree_reads, "REPLY_BYTES_MAX", 3000)
    service = await filled(tmp_path)
    hour = T0 // MICROS_PER_HOUR
    asked = tuple(Question(Level.BUCKETS, shard, hour) for shard in SHARDS)

    answers = await service.tree(TreeRequest(asked, LATER, 1))

    assert [len(one) for one in answers] == [2048, 2048]
    await service.stop()


async def test_an_older_ring_is_refused(tmp_path: Path) -> None:
    """Who does not know the ring in force does not know with whom to compare either."""
    service = await filled(tmp_path)
    service.observe_epochs(4, {})

    with pytest.raises(StaleRingEpoch):
        await service.tree(TreeRequest((roots_question([0], bytes(16)),), LATER, 3))
    await service.stop()


async def test_answers_stay_right_while_rows_arrive(tmp_path: Path) -> None:
    """Puts go on during the questions: what was settled before is told the same."""
    service = await filled(tmp_path)
    model = model_of(entries(), service)
    asked = questions(model)
    expected = as_sets(asked, model.answers(TreeRequest(asked, LATER, 1)))

    async def write() -> None:
        for number in range(100, 160):
            more = [plain(number + k, 1, f"w{k}", received_at=LATER + SECOND) for k in range(40)]
            await service.put(block_of(number, *more), OPTIONS)

    writing = asyncio.create_task(write())
    for _ in range(10):
        assert as_sets(asked, await service.tree(TreeRequest(asked, LATER, 1))) == expected
        await asyncio.sleep(0)
    await writing
    await service.stop()
