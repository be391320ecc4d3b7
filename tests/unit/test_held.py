"""Events that Inngest holds: asked for by their ULIDs, before an old row is sent again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inngest_outbox.errors import InngestApiError
from inngest_outbox.inngest.dedupe_horizon import DedupeHorizon, HorizonCheck
from inngest_outbox.inngest.held import HeldEvent, find_held
from inngest_outbox.outbox.event import Meta
from inngest_outbox.outbox.inngest_id import InngestIds, WantedEvent, decode_ulid, encode_ulid
from inngest_outbox.outbox.model import Batch, Entry, Retry, Settlement
from tests.support.virtual_time import in_virtual_time, now

BASE = 1 << 100


class Pages:
    """Inngest's list over events in memory; `stored` is ULIDs, some more than once."""

    def __init__(
        self, stored: Sequence[int], others: Sequence[int] = (), environment: str | None = None
    ) -> None:
        self._environment = environment
        events = [HeldEvent(encode_ulid(one), f"e{one}") for one in stored]
        events += [HeldEvent(encode_ulid(one), "another") for one in others]
        self._events = sorted(events, key=lambda event: event.ulid, reverse=True)
        self.asked: list[tuple[int, int]] = []

    @property
    def requests(self) -> int:
        return len(self.asked)

    async def page(
        self, before: str, limit: int, environment: str | None = None
    ) -> Sequence[HeldEvent]:
        self.asked.append((decode_ulid(before) - BASE, limit))
        if environment != self._environment:
            return []
        below = [event for event in self._events if event.ulid < before]
        return below[: min(limit, 50)]


class Always(Pages):
    """Shows these events, whatever it is asked for."""

    def __init__(self, *events: HeldEvent) -> None:
        super().__init__([])
        self._events = [*events]

    async def page(
        self, before: str, limit: int, environment: str | None = None
    ) -> Sequence[HeldEvent]:
        await super().page(before, limit, environment)
        return self._events


def wanted(ulids: Sequence[int]) -> dict[int, WantedEvent]:
    return {ulid: WantedEvent(f"e{ulid}") for ulid in ulids}


ULIDS = st.lists(st.integers(BASE, BASE + 400), unique=True, max_size=80)


@given(ULIDS, ULIDS, ULIDS)
async def test_exactly_the_stored_ones_are_held(stored, asked, others):
    others = [ulid for ulid in others if ulid not in stored]
    found = await find_held(Pages([*stored, *stored[:3]], others), wanted(asked))
    assert found == set(stored) & set(asked)


FAR_APART = [BASE + (at << 90) for at in range(100)]


@pytest.mark.parametrize(
    ("stored", "others", "asked", "requests"),
    [
        (range(BASE, BASE + 500), (), range(BASE, BASE + 500), 10),
        (range(BASE, BASE + 10), (), range(BASE + 10, BASE + 510), 1),
        ([BASE], (), [], 0),
        (FAR_APART, (), FAR_APART, 2),
        ([BASE, BASE + 1000], range(BASE + 1, BASE + 999), [BASE, BASE + 1000], 2),
    ],
    ids=["consecutive", "none of a stretch", "nothing wanted", "far apart", "others between"],
)
async def test_few_requests_find_all_that_is_held(stored, others, asked, requests):
    pages = Pages(stored, others)
    assert await find_held(pages, wanted(asked)) == set(stored) & set(asked)
    assert pages.requests == requests


async def test_an_event_is_looked_for_in_its_own_environment() -> None:
    ulids = [BASE, BASE + 1, BASE + 2]
    asked = wanted(ulids)
    asked[BASE + 1] = WantedEvent(f"e{BASE + 1}", "branch")
    assert await find_held(Pages(ulids), asked) == {BASE, BASE + 2}
    assert await find_held(Pages(ulids, environment="branch"), asked) == {BASE + 1}


async def test_pages_begin_just_above_the_newest_wanted_event_and_end_with_the_oldest() -> None:
    pages = Pages(range(BASE - 60, BASE + 200))
    asked = wanted(range(BASE, BASE + 120))
    assert await find_held(pages, asked) == set(asked)
    assert pages.asked == [(120, 50), (50, 50), (70, 20)]


async def test_a_list_that_does_not_go_on_is_asked_for_less_each_time() -> None:
    pages = Always(HeldEvent(encode_ulid(BASE + 9), "e"))
    assert await find_held(pages, wanted(range(BASE, BASE + 4))) == set()
    assert pages.asked == [(4, 4), (3, 3), (2, 2), (1, 1)]


async def test_a_question_that_fails_ends_those_beside_it() -> None:
    asked: list[str] = []

    class Failing:
        async def page(self, before: str, limit: int, environment: str | None = None) -> Any:
            asked.append(before)
            if len(asked) == 1:
                return [HeldEvent(before, "another")]
            if len(asked) == 3:
                raise InngestApiError
            try:
                await asyncio.Event().wait()
            finally:
                asked.append("cancelled")

    with pytest.raises(InngestApiError):
        await find_held(Failing(), wanted(range(BASE, BASE + 101)))
    await asyncio.sleep(0)
    assert asked[3:] == ["cancelled"]


def test_an_event_is_wanted_under_the_id_on_the_wire() -> None:
    assert WantedEvent.sent("own", Meta()) == WantedEvent("own", None)
    assert WantedEvent.sent("own", Meta("mine", "branch")) == WantedEvent("mine", "branch")
    assert WantedEvent.sent("own", Meta("")) == WantedEvent(None, None)


async def test_an_event_without_an_id_of_its_own_is_held_under_its_ulid() -> None:
    ulid = encode_ulid(BASE)
    for shown, wanted_, held in ((ulid, None, {BASE}), (ulid, "mine", set()), ("a", None, set())):
        page = Always(HeldEvent(ulid, shown))
        assert await find_held(page, {BASE: WantedEvent(wanted_)}) == held


async def test_an_event_that_is_shown_without_a_ulid_is_a_fault_of_the_answer():
    with pytest.raises(InngestApiError, match="without a ULID"):
        await find_held(Always(HeldEvent("not a ULID", "e1")), wanted([BASE]))


IDS = InngestIds(b"prefix")
HOUR_MS = 3_600_000
NOW_MS = 100 * HOUR_MS


class HeldRows:
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


async def check(pages: HeldRows, wanted: Batch) -> HorizonCheck:
    return await DedupeHorizon(pages, IDS).check(wanted, NOW_MS)


def left(done: HorizonCheck) -> list[str]:
    return [entry.event_id for entry in done.send.entries] if done.send else []


async def test_rows_that_left_lately_or_never_are_sent_without_a_question():
    pages = HeldRows([1, 2])
    wanted = batch(e1=None, e2=23.5)
    done = await check(pages, wanted)
    assert (done.send, done.settlement, pages.requests) == (wanted, None, 0)


async def test_what_inngest_holds_is_delivered_and_the_rest_is_sent():
    done = await check(HeldRows([1, 3]), batch(e1=25, e2=25, e3=1))
    assert left(done) == ["e2", "e3"]
    assert done.send.payloads == b'{"id":"e2"},{"id":"e3"}'
    assert (done.settlement.delivered, done.settlement.retry) == ([1], [])
    done = await check(HeldRows([]), batch(e1=25))
    assert (left(done), done.settlement) == (["e1"], None)
    assert left(await check(HeldRows([1, 2]), batch(e1=25, e2=26))) == []


@pytest.mark.parametrize("isolated", [False, True])
async def test_while_inngest_can_not_be_asked_old_rows_wait_and_say_why(*, isolated: bool):
    rows = batch(e1=25, e2=1)
    alone = msgspec.structs.replace(rows.entries[0], isolated=isolated)
    rows = msgspec.structs.replace(rows, entries=(alone, rows.entries[1]))
    done = await check(HeldRows([1], away=True), rows)
    assert left(done) == ["e2"]
    note = "not sent: it may have left 24 h ago, and Inngest can't be asked."
    retry = Retry(1, 30, attempts=1, isolated=isolated, note=note)
    assert done.settlement == Settlement("claim", delivered=[], retry=[retry])


MANY = [f"e{seq}" for seq in range(1, 251)]


@pytest.mark.parametrize(("seconds", "asked"), [(1.25, 5), (1.5, 4), (2.0, 3), (9.0, 1)])
@in_virtual_time
async def test_of_many_old_rows_the_last_wait_while_inngest_answers_slowly(
    seconds: float, asked: int
) -> None:
    pages = HeldRows(range(1, 251, 2))
    pages.seconds = seconds
    done = await check(pages, batch(**dict.fromkeys(MANY, 25)))
    assert left(done) == MANY[1 : 50 * asked : 2]
    assert (pages.requests, now()) == (asked, asked * seconds)
    assert sorted(done.settlement.delivered) == [*range(1, 50 * asked + 1, 2)]
    assert [retry.seq for retry in done.settlement.retry] == [*range(50 * asked + 1, 251)]
    notes = {retry.note for retry in done.settlement.retry}
    assert notes <= {"not sent: it may have left 24 h ago, and Inngest answers slowly"}
    assert {retry.delay_seconds for retry in done.settlement.retry} <= {30}


async def test_what_inngest_said_before_it_could_not_be_asked_counts() -> None:
    pages = HeldRows([1, 60])
    pages.away_after = 1
    done = await check(pages, batch(**dict.fromkeys(MANY[:160], 25)))
    assert left(done) == MANY[1:50]
    assert done.settlement.delivered == [1]
    assert [retry.seq for retry in done.settlement.retry] == [*range(51, 161)]


@pytest.mark.parametrize(("milliseconds", "asked"), [(0, 0), (1, 1), (HOUR_MS, 1)])
@pytest.mark.parametrize("restored", [False, True])
async def test_a_row_is_asked_for_five_minutes_before_the_day_is_over(
    milliseconds, asked, *, restored
):
    """Of a row from the journal the time of its send is not known: it is asked for at once."""
    day_ms = 24 * HOUR_MS - 5 * 60_000
    for first_sent_hours, is_asked in ((0, asked or restored), (None, 0)):
        pages, rows = HeldRows([]), batch(e1=first_sent_hours)
        entry = msgspec.structs.replace(rows.entries[0], meta=Meta(restored=restored))
        rows = msgspec.structs.replace(rows, entries=(entry,))
        await DedupeHorizon(pages, IDS).check(rows, NOW_MS + day_ms + milliseconds)
        assert pages.requests == is_asked
