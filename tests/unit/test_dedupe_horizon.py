"""Rows that may have left before Inngest forgot their ids are sent only when it never got them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from service.errors import InngestApiError
from service.inngest.dedupe_horizon import DedupeHorizon, HorizonCheck
from service.inngest.held import HeldEvent
from service.outbox.inngest_id import InngestIds
from service.outbox.model import Batch, Entry
from tests.support.virtual_time import in_virtual_time, now

IDS = InngestIds(b"prefix")
HOUR_MS = 3_600_000
NOW_MS = 100 * HOUR_MS


class Pages:
    def __init__(self, held: Sequence[int], *, away: bool = False) -> None:
        self.held = [HeldEvent(IDS.ulid(seq, 0), f"e{seq}") for seq in held]
        self.away = away
        self.requests = 0
        self.seconds = 0.0
        self.away_after: int | None = None

    async def page(
        self, before: str, limit: int, environment: str | None = None
    ) -> Sequence[HeldEvent]:
        await asyncio.sleep(self.seconds)
        if self.away or self.requests == self.away_after:
            raise InngestApiError("Inngest can't be asked.", reached=False)
        self.requests += 1
        below = [one for one in self.held if one.ulid < before]
        return sorted(below, key=lambda one: one.ulid, reverse=True)[:limit]


def batch(**first_sent_hours_ago: float | None) -> Batch:
    entries = []
    for name, hours in first_sent_hours_ago.items():
        seq = int(name.removeprefix("e"))
        first_sent = None if hours is None else NOW_MS - int(hours * HOUR_MS)
        entries.append(Entry(seq, name, 0, "u-1", first_sent_at_ms=first_sent, sends=3, attempts=1))
    payloads = b",".join(b'{"id":"%b"}' % entry.event_id.encode() for entry in entries)
    return Batch("claim", tuple(entries), payloads)


async def check(pages: Pages, wanted: Batch) -> HorizonCheck:
    return await DedupeHorizon(pages, IDS).check(wanted, NOW_MS)


def left(done: HorizonCheck) -> list[str]:
    return [entry.event_id for entry in done.send.entries] if done.send else []


async def test_rows_that_left_lately_or_never_are_sent_without_a_question():
    pages = Pages([1, 2])
    wanted = batch(e1=None, e2=23.5)
    done = await check(pages, wanted)
    assert (done.send, done.settlement, pages.requests) == (wanted, None, 0)


async def test_what_inngest_holds_is_delivered_and_the_rest_is_sent():
    done = await check(Pages([1, 3]), batch(e1=25, e2=25, e3=1))
    assert left(done) == ["e2", "e3"]
    assert done.send is not None
    assert done.send.payloads == b'{"id":"e2"},{"id":"e3"}'
    assert done.settlement is not None
    assert (done.settlement.delivered, done.settlement.retry) == ([1], [])


async def test_what_inngest_never_got_is_sent():
    done = await check(Pages([]), batch(e1=25))
    assert (left(done), done.settlement) == (["e1"], None)


async def test_a_batch_that_inngest_holds_whole_sends_nothing():
    assert left(await check(Pages([1, 2]), batch(e1=25, e2=26))) == []


async def test_while_inngest_can_not_be_asked_old_rows_wait_and_say_why():
    done = await check(Pages([1], away=True), batch(e1=25, e2=1))
    assert left(done) == ["e2"]
    assert done.settlement is not None
    [retry] = done.settlement.retry
    assert (retry.seq, retry.attempts, retry.isolated) == (1, 1, False)
    assert retry.delay_seconds == 30
    assert "can't be asked" in (retry.note or "")


MANY = [f"e{seq}" for seq in range(1, 251)]


@pytest.mark.parametrize(("seconds", "asked"), [(1.25, 5), (1.5, 4), (2.0, 3), (9.0, 1)])
@in_virtual_time
async def test_of_many_old_rows_the_last_wait_while_inngest_answers_slowly(
    seconds: float, asked: int
) -> None:
    pages = Pages(range(1, 251, 2))
    pages.seconds = seconds
    done = await check(pages, batch(**dict.fromkeys(MANY, 25)))
    assert left(done) == MANY[1 : 50 * asked : 2]
    assert (pages.requests, now()) == (asked, asked * seconds)
    assert done.settlement is not None
    assert sorted(done.settlement.delivered) == [*range(1, 50 * asked + 1, 2)]
    assert [retry.seq for retry in done.settlement.retry] == [*range(50 * asked + 1, 251)]
    notes = {retry.note for retry in done.settlement.retry}
    assert notes <= {"not sent: it may have left 24 h ago, and Inngest answers slowly"}
    assert {retry.delay_seconds for retry in done.settlement.retry} <= {30}


async def test_what_inngest_said_before_it_could_not_be_asked_counts() -> None:
    pages = Pages([1, 60])
    pages.away_after = 1
    done = await check(pages, batch(**dict.fromkeys(MANY[:160], 25)))
    assert left(done) == MANY[1:50]
    assert done.settlement is not None
    assert done.settlement.delivered == [1]
    assert [retry.seq for retry in done.settlement.retry] == [*range(51, 161)]


@pytest.mark.parametrize(("milliseconds", "asked"), [(0, 0), (1, 1), (HOUR_MS, 1)])
async def test_a_row_is_asked_for_five_minutes_before_the_day_is_over(milliseconds, asked):
    pages = Pages([])
    day_ms = 24 * HOUR_MS - 5 * 60_000
    await DedupeHorizon(pages, IDS).check(batch(e1=0), NOW_MS + day_ms + milliseconds)
    assert pages.requests == asked
