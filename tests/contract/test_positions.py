"""Bounded looks: where a window of rows ends, and where a moment is among the rows."""

from __future__ import annotations

import msgspec

from service.console.operations.search import Search, SearchPolicy
from service.outbox.model import Filter, State
from tests.support.rows import one_of_each
from tests.support.storage import Outbox, append_all, event

SMALL = SearchPolicy(first_window=3, window=3, budget_seconds=60.0)


async def append_at(outbox: Outbox, *times: int) -> list[str]:
    events = [msgspec.structs.replace(event(), accepted_at_ms=at) for at in times]
    for each in events:
        await outbox.intake.append(each)
    return [each.id for each in events]


async def test_a_window_ends_at_its_last_row_or_nowhere(outbox: Outbox) -> None:
    await append_all(outbox, 5)
    rows = await outbox.inspector.rows(Filter())
    for state in (None, State.PENDING):
        reach = await outbox.positions.reach(state, 2)
        assert reach is not None
        assert (reach.seq, reach.accepted_at_ms) == (rows[1].seq, rows[1].accepted_at_ms)
        below = await outbox.positions.reach(state, 2, reach.seq)
        assert below is not None
        assert below.seq == rows[3].seq
        assert await outbox.positions.reach(state, 6) is None
    assert await outbox.positions.reach(State.DEAD, 1) is None


async def test_every_state_has_windows(outbox: Outbox) -> None:
    places = await one_of_each(outbox)
    for state, event_id in places.items():
        [row] = await outbox.inspector.rows(Filter(ids=(event_id,)))
        reach = await outbox.positions.reach(state, 1)
        assert reach is not None
        assert reach.seq == row.seq


async def test_a_moment_is_found_among_the_rows(outbox: Outbox) -> None:
    assert await outbox.positions.seq_at(1_000) <= 1
    ids = await append_at(outbox, 1_000, 2_000, 3_000, 4_000)
    rows = {row.id: row.seq for row in await outbox.inspector.rows(Filter())}
    assert await outbox.positions.seq_at(0) == rows[ids[0]]
    assert await outbox.positions.seq_at(2_500) == rows[ids[2]]
    assert await outbox.positions.seq_at(9_000) == rows[ids[3]] + 1


async def test_a_search_goes_through_windows_until_its_page_is_full(outbox: Outbox) -> None:
    wanted = [(await append_all(outbox, 1, "rare"))[0].id]
    await append_all(outbox, 7, "common")
    wanted.insert(0, (await append_all(outbox, 1, "rare"))[0].id)
    search = Search(outbox.inspector, outbox.positions, SMALL)
    found = await search.find(Filter(user_id="rare", limit=10))
    assert [row.id for row in found.rows] == wanted
    assert (found.next_seq, found.paused_at_ms) == (None, None)
    first = await search.find(Filter(user_id="rare", limit=1))
    assert [row.id for row in first.rows] == wanted[:1]
    second = await search.find(Filter(user_id="rare", limit=1, before_seq=first.next_seq))
    assert [row.id for row in second.rows] == wanted[1:]


async def test_a_search_in_time_begins_and_ends_there(outbox: Outbox) -> None:
    minute = 60_000
    ids = await append_at(outbox, *(hour * 60 * minute for hour in range(1, 9)))
    search = Search(outbox.inspector, outbox.positions, SMALL)
    wanted = Filter(since_ms=3 * 60 * minute, until_ms=5 * 60 * minute + 1, limit=10)
    found = await search.find(wanted)
    assert [row.id for row in found.rows] == [ids[4], ids[3], ids[2]]
