"""Searches that end early, and those among the rows of one owner."""

from __future__ import annotations

import pytest

from service.operations.search import Search, SearchPolicy
from service.outbox.model import Filter, State
from tests.support.rows import bury_all
from tests.support.storage import Outbox, append_all, claim, deliver, event

# Rows of the owner are gone through where more rows than a window are in the state.
AMONG_OWN = SearchPolicy(first_window=2, window=3, budget_seconds=60.0)
AMONG_STATE = SearchPolicy(first_window=2, window=50, budget_seconds=60.0)


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
    policy = SearchPolicy(first_window=3, window=3, budget_seconds=0.0)
    search = Search(outbox.inspector, outbox.positions, policy)
    wanted = Filter(owner="mine", name="rare", state=State.PENDING)
    first = await search.find(wanted)
    assert (first.rows, first.paused_at_ms is None) == ([], False)
    assert first.next_seq is not None
    assert await all_pages(search, owner="mine", name="rare") == [rare.id]


async def test_rows_of_some_age_are_found_from_their_moment_on(outbox: Outbox) -> None:
    ids = [one.id for one in await append_all(outbox, 8)]
    search = Search(outbox.inspector, outbox.positions, AMONG_OWN)
    assert await all_pages(search, older_than_seconds=-60.0, limit=5) == ids[::-1]
    assert await all_pages(search, older_than_seconds=3_600.0, limit=5) == []
