"""Searches that end early, and those among the rows of one owner."""

from __future__ import annotations

import msgspec
import pytest

from service.console.operations.bulk import find_all
from service.console.operations.search import Counted, Listing, Search, SearchPolicy, list_rows
from service.outbox.model import Filter, State
from tests.support.rows import bury_all
from tests.support.storage import Outbox, append_all, claim, deliver, event

# Rows of the owner are gone through where more rows than a window are in the state.
AMONG_OWN = SearchPolicy(first_window=2, window=3, budget_seconds=60.0)
HASTY = SearchPolicy(first_window=3, window=3, budget_seconds=0.0)
AMONG_STATE = SearchPolicy(first_window=2, window=50, budget_seconds=60.0)
NEVER_MS = 2**52


async def all_pages(search: Search, **wanted: object) -> list[str]:
    """The ids of all pages; some pages may be short or empty."""
    found: list[str] = []
    before = None
    while True:
        page = await search.find(Filter(before_seq=before, **wanted))
        found += [row.id for row in page.rows]
        assert before is None or page.next_seq is None or page.next_seq < before
        before = page.next_seq
        if before is None:
            return found


async def test_a_window_of_an_owner_ends_at_the_owner_s_rows(outbox: Outbox) -> None:
    own = []
    for _ in range(3):
        own += await append_all(outbox, 1, "mine")
        await append_all(outbox, 2, "other")
    rows = {row.id: row for row in await outbox.inspector.rows(Filter(owner="mine"))}
    seqs = [rows[each.id].seq for each in own]
    reach = await outbox.positions.reach(None, 2, owner="mine")
    assert reach is not None
    assert (reach.seq, reach.accepted_at_ms) == (seqs[1], own[1].accepted_at_ms)
    below = await outbox.positions.reach(None, 1, seqs[1], "mine")
    assert below is not None
    assert below.seq == seqs[0]
    assert await outbox.positions.reach(None, 4, None, "mine") is None
    assert await outbox.positions.reach(None, 1, None, "nobody") is None


@pytest.mark.parametrize("policy", [AMONG_OWN, AMONG_STATE])
async def test_an_owner_s_rows_are_found_in_any_state(outbox: Outbox, policy: SearchPolicy) -> None:
    wanted: dict[State | None, list[str]] = {State.PENDING: [], State.DEAD: [], State.SENT: []}
    wanted[State.DELIVERED] = [one.id for one in await append_all(outbox, 4, "mine")]
    await deliver(outbox, await claim(outbox))
    for _ in range(3):
        dead = [event("mine"), event("other")]
        await bury_all(outbox, *dead)
        wanted[State.DEAD].append(dead[0].id)
    for _ in range(5):
        wanted[State.PENDING] += [one.id for one in await append_all(outbox, 1, "mine")]
        await append_all(outbox, 1, "other")
    wanted[None] = wanted[State.DELIVERED] + wanted[State.DEAD] + wanted[State.PENDING]
    search = Search(outbox.inspector, outbox.positions, policy)
    for state, ids in wanted.items():
        found = await all_pages(search, owner="mine", state=state, limit=2)
        assert found == ids[::-1], state
        assert await all_pages(search, owner="mine", state=state, name="no", limit=2) == []
        assert await all_pages(search, owner="nobody", state=state, limit=2) == []


async def test_a_search_among_an_owner_s_rows_pauses(outbox: Outbox) -> None:
    rare = event("mine", name="rare")
    await outbox.intake.append(rare)
    await append_all(outbox, 7, "mine")
    search = Search(outbox.inspector, outbox.positions, HASTY)
    wanted = Filter(owner="mine", name="rare", state=State.PENDING)
    first = await search.find(wanted)
    assert (first.rows, first.paused_at_ms is None) == ([], False)
    assert first.next_seq is not None
    assert await all_pages(search, owner="mine", name="rare") == [rare.id]


async def test_a_row_that_was_committed_out_of_order_is_found_since_its_time(
    outbox: Outbox,
) -> None:
    early, late = event("mine"), event("mine")
    late = msgspec.structs.replace(late, accepted_at_ms=early.accepted_at_ms + 1_000)
    for one in (late, early):
        await outbox.intake.append(one)
    search = Search(outbox.inspector, outbox.positions, SearchPolicy(first_window=1, window=1))
    found = await search.find(Filter(since_ms=late.accepted_at_ms))
    assert [row.id for row in found.rows] == [late.id]


async def test_rows_are_counted_up_to_a_limit_or_until_a_pause(outbox: Outbox) -> None:
    await append_all(outbox, 2, "rare")
    await append_all(outbox, 7, "mine")
    patient, hasty = (
        Search(outbox.inspector, outbox.positions, policy) for policy in (AMONG_OWN, HASTY)
    )
    assert await patient.count(Filter(limit=9)) == Counted(9, is_bounded=False)
    assert await patient.count(Filter(limit=8)) == Counted(8, is_bounded=True)
    assert await patient.count(Filter(user_id="rare")) == Counted(2, is_bounded=False)
    assert await hasty.count(Filter(user_id="mine")) == Counted(3, is_bounded=True)
    assert await patient.count(Filter(state=State.DEAD)) == Counted(0, is_bounded=False)
    assert await patient.count(Filter(state=State.PENDING, user_id="mine")) == Counted(
        7, is_bounded=False
    )


async def test_a_listing_says_of_how_many_it_is_a_part(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    await append_all(outbox, 8)
    patient, hasty = (
        Search(outbox.inspector, outbox.positions, policy) for policy in (AMONG_OWN, HASTY)
    )
    whole = await list_rows(patient, patient, Filter(limit=8))
    assert (whole.words, whole.found.next_seq) == ("8 of 8", None)
    part = await list_rows(patient, patient, Filter(limit=2))
    assert (part.words, part.found.next_seq) == ("2 of 8", part.found.rows[1].seq)
    rest = await list_rows(patient, patient, Filter(limit=6, before_seq=part.found.next_seq))
    assert rest.words == "6 of 6"
    assert (await list_rows(patient, hasty, Filter(limit=2))).words == "2 of more than 5"
    paused = await list_rows(hasty, patient, Filter(user_id="nobody", limit=2))
    assert (paused.words, paused.found.paused_at_ms is None) == ("0 of more than 0", False)
    assert Listing(part.found, 1_202, is_bounded=False).words == "2 of 1,202"
    monkeypatch.setattr("service.console.operations.search.MAX_COUNTED", 4)
    assert (await list_rows(patient, patient, Filter(limit=2))).words == "2 of more than 4"


async def test_all_rows_are_found_however_long_it_takes(outbox: Outbox) -> None:
    ids = [one.id for one in await append_all(outbox, 8)]
    search = Search(outbox.inspector, outbox.positions, HASTY)
    told: list[int] = []
    found = await find_all(search, Filter(limit=99), lambda count, _: told.append(count))
    assert ([row.id for row in found], told) == (ids[::-1], [3, 6])
    told.clear()
    found = await find_all(search, Filter(limit=4), lambda count, _: told.append(count))
    assert ([row.id for row in found], told) == (ids[:3:-1], [3])
    given = Filter(ids=(ids[0], ids[5]), limit=99)
    assert [row.id for row in await find_all(search, given, no_pause)] == [ids[5], ids[0]]


def no_pause(count: int, back_to_ms: int) -> None:
    raise AssertionError((count, back_to_ms))


async def test_rows_of_some_age_are_found_from_their_moment_on(outbox: Outbox) -> None:
    ids = [one.id for one in await append_all(outbox, 8)]
    search = Search(outbox.inspector, outbox.positions, AMONG_OWN)
    assert await all_pages(search, older_than_seconds=-60.0, limit=5) == ids[::-1]
    assert await all_pages(search, older_than_seconds=3_600.0, limit=5) == []


@pytest.mark.parametrize("until_ms", [None, NEVER_MS])
async def test_newer_rows_are_not_gone_through_for_rows_of_some_age(
    outbox: Outbox, until_ms: int | None
) -> None:
    old = event()
    old = msgspec.structs.replace(old, accepted_at_ms=old.accepted_at_ms - 7_200_000)
    await outbox.intake.append(old)
    await append_all(outbox, 8)
    wanted = Filter(older_than_seconds=3_600.0, until_ms=until_ms, limit=5)
    found = await Search(outbox.inspector, outbox.positions, HASTY).find(wanted)
    assert ([row.id for row in found.rows], found.next_seq) == ([old.id], None)
