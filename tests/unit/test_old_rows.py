"""Rows that Inngest is asked about before they are sent: they keep no sender and no claim."""

from __future__ import annotations

import asyncio

import pytest

from service.inngest.dedupe_horizon import DedupeHorizon, HorizonCheck
from service.inngest.held import HeldEvent
from service.outbox.inngest_id import decode_ulid, encode_ulid
from service.outbox.model import Batch, Retry, Settlement
from tests.support.delivery_model import HEALTHY
from tests.support.delivery_world import World
from tests.support.memory_rows import IDS, MemoryRow
from tests.support.virtual_time import in_virtual_time

pytestmark = pytest.mark.usefixtures("quiet")


class Questions:
    """All isolated rows are old, and Inngest holds them. The first `away` batches can't be asked.

    While there is a `fault`, a question ends with it.
    """

    def __init__(self, *, away: int = 0) -> None:
        self.away = away
        self.fault: Exception | None = None

    async def check(self, batch: Batch, now_ms: int) -> HorizonCheck:
        await asyncio.sleep(0.05)
        if self.fault is not None:
            raise self.fault
        if not batch.entries[0].isolated:
            return HorizonCheck(batch, None)
        self.away -= 1
        if self.away >= 0:
            later = [
                Retry(entry.seq, 30.0, entry.attempts, isolated=True) for entry in batch.entries
            ]
            return HorizonCheck(None, Settlement(batch.claim, retry=later))
        held = [entry.seq for entry in batch.entries]
        return HorizonCheck(None, Settlement(batch.claim, delivered=held))


def asking(questions: Questions | DedupeHorizon, senders: int) -> World:
    world = World(senders=senders, max_events=500)
    world.relay = world.made_relay(horizon=questions)
    return world


def isolated(world: World, count: int) -> list[MemoryRow]:
    rows = world.add(*[HEALTHY] * count)
    for row in rows:
        row.isolated = True
    return rows


@pytest.mark.parametrize("senders", [1, 4])
@in_virtual_time
async def test_isolated_rows_that_inngest_holds_follow_each_other(
    senders: int,
) -> None:
    world = asking(Questions(), senders)
    rows = isolated(world, 10)
    async with world.running():
        await world.until(rows, 1)
    assert not world.inngest.sent_at


@in_virtual_time
async def test_an_isolated_row_that_inngest_could_not_be_asked_about_is_asked_for_again() -> None:
    world = asking(Questions(away=1), senders=1)
    rows = isolated(world, 1)
    async with world.running():
        await world.until(rows, 31)


@in_virtual_time
async def test_questions_that_end_with_a_fault_keep_no_sender() -> None:
    questions = Questions()
    world = asking(questions, senders=2)
    questions.fault = RuntimeError("ours")
    async with world.running():
        rows = []
        for _ in range(5):
            rows += world.add(HEALTHY)
            await asyncio.sleep(1)
        assert world.recorder.counted["task_restarts"] == 5
        questions.fault = None
        rows += world.add(HEALTHY)
        await world.until(rows[-1:], 1)
        await world.until(rows, 45)


class SlowPages:
    """Inngest holds other events under all ULIDs, and takes so many seconds for a page."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def page(
        self, before: str, limit: int, environment: str | None = None
    ) -> list[HeldEvent]:
        await asyncio.sleep(self.seconds)
        newest = decode_ulid(before) - 1
        return [HeldEvent(encode_ulid(newest - at), "another") for at in range(limit)]


@pytest.mark.parametrize("seconds", [0.1, 2.5, 9.0])
@in_virtual_time
async def test_slow_answers_hold_back_no_event_and_each_old_row_has_a_turn(
    seconds: float,
) -> None:
    world = asking(DedupeHorizon(SlowPages(seconds), IDS), senders=1)
    rows = world.add(*[HEALTHY] * 400)
    for row in rows:
        row.first_sent_at = row.born_at
    new = world.add(*[HEALTHY] * 10)
    async with world.running():
        await world.until(new, 60)
        await world.until(rows, 1200)
    assert world.recorder.counted["lease_lost"] == 0
