"""Events are looked for in bulk, and found only under their own ULID and id."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InngestApiError
from service.inngest.held import HeldEvent, find_held
from service.outbox.event import Meta
from service.outbox.inngest_id import WantedEvent, decode_ulid, encode_ulid

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


async def test_five_hundred_consecutive_events_cost_ten_requests():
    ulids = range(BASE, BASE + 500)
    pages = Pages(ulids)
    assert await find_held(pages, wanted(ulids)) == set(ulids)
    assert pages.requests == 10


async def test_a_stretch_of_which_nothing_is_held_costs_one_request():
    pages = Pages(range(BASE, BASE + 10))
    assert await find_held(pages, wanted(range(BASE + 10, BASE + 510))) == set()
    assert pages.requests == 1


async def test_nothing_wanted_asks_nothing():
    pages = Pages([BASE])
    assert await find_held(pages, {}) == set()
    assert pages.requests == 0


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


async def test_a_page_that_reaches_older_events_is_the_last_one() -> None:
    stored = [*range(BASE - 60, BASE), *range(BASE + 70, BASE + 100)]
    pages = Pages(stored)
    assert await find_held(pages, wanted(range(BASE, BASE + 100))) == set(stored[60:])
    assert pages.asked == [(100, 50)]


async def test_a_list_that_does_not_go_on_is_asked_for_less_each_time() -> None:
    pages = Always(HeldEvent(encode_ulid(BASE + 9), "e"))
    assert await find_held(pages, wanted(range(BASE, BASE + 4))) == set()
    assert pages.asked == [(4, 4), (3, 3), (2, 2), (1, 1)]


async def test_a_page_holds_events_however_far_apart_their_ulids_are() -> None:
    ulids = [BASE + (at << 90) for at in range(100)]
    pages = Pages(ulids)
    assert await find_held(pages, wanted(ulids)) == set(ulids)
    assert pages.requests == 2


async def test_events_of_others_between_two_wanted_ones_are_stepped_over() -> None:
    pages = Pages([BASE, BASE + 1000], others=range(BASE + 1, BASE + 999))
    assert await find_held(pages, wanted([BASE, BASE + 1000])) == {BASE, BASE + 1000}
    assert pages.requests == 2


def test_an_event_is_wanted_under_the_id_on_the_wire() -> None:
    assert WantedEvent.sent("own", Meta()) == WantedEvent("own", None)
    assert WantedEvent.sent("own", Meta("mine", "branch")) == WantedEvent("mine", "branch")
    assert WantedEvent.sent("own", Meta("")) == WantedEvent(None, None)


async def test_an_event_without_an_id_of_its_own_is_held_under_its_ulid() -> None:
    named = HeldEvent(encode_ulid(BASE), encode_ulid(BASE))
    assert await find_held(Always(named), {BASE: WantedEvent(None)}) == {BASE}
    assert await find_held(Always(named), {BASE: WantedEvent("mine")}) == set()


async def test_an_event_that_is_shown_without_a_ulid_is_a_fault_of_the_answer():
    with pytest.raises(InngestApiError, match="without a ULID"):
        await find_held(Always(HeldEvent("not a ULID", "e1")), wanted([BASE]))
