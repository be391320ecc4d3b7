"""The windows of rows that a search goes through, and where it pauses and ends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from inngest_outbox.console.operations.search import (
    Counted,
    Found,
    Search,
    SearchPolicy,
    find_ids,
    list_rows,
)
from inngest_outbox.outbox.model import Filter, Row, State
from tests.support.listed_outbox import ListedOutbox
from tests.support.made_row import made_row

SMALL = SearchPolicy(first_window=2, window=20, budget_seconds=1e9)
NONE = {"user_id": "nobody"}


def rows(numbers: Iterable[int], state: State = State.PENDING, **changes: object) -> list[Row]:
    """A row for each number, accepted at that second."""
    return [
        made_row(state, id=f"e-{seq}", seq=seq, accepted_at_ms=seq * 1000, **changes)
        for seq in numbers
    ]


async def looked(
    outbox: ListedOutbox, policy: SearchPolicy | None = SMALL, **wanted: Any
) -> list[tuple[int | None, int | None]]:
    search = Search(outbox, outbox, policy, lambda: 0.0)  # type: ignore[arg-type]
    await search.find(Filter(**wanted))
    return outbox.windows


async def test_windows_grow_fourfold_from_500_to_20_000_rows() -> None:
    windows = await looked(ListedOutbox(rows(range(1, 31_001))), None, **NONE)
    afters = [30_500, 28_500, 20_500, 500]
    befores = [None, *(after + 1 for after in afters)]
    assert windows == list(zip(befores, [*afters, None], strict=True))
    # A window that is known to be the last ends the search.
    assert await looked(ListedOutbox(rows([1, 2])), **NONE) == [(None, 0)]


async def test_windows_in_which_payloads_are_read_do_not_grow() -> None:
    windows = await looked(ListedOutbox(rows(range(1, 8))), **NONE, payload_part="x")
    assert windows == [(None, 5), (6, 3), (4, 1), (2, None)]


@pytest.mark.parametrize(
    ("since_ms", "last"), [(100_000, (41, 38)), (100_001, (41, 38)), (99_000, (39, 36))]
)
async def test_a_search_since_a_time_ends_a_minute_before_it(
    since_ms: int, last: tuple[int, int]
) -> None:
    policy = SearchPolicy(first_window=2, window=2, late_rows=0)
    for owner in (None, "dev u-1"):
        wanted = {"since_ms": since_ms, "owner": owner, **NONE}
        assert (await looked(ListedOutbox(rows(range(1, 201))), policy, **wanted))[-1] == last


@pytest.mark.parametrize(("late", "is_found"), [(20_000, True), (40_500, False)])
async def test_rows_that_were_stored_late_hide_nothing_below_them(
    late: int, *, is_found: bool
) -> None:
    listed = [made_row(id="e", seq=seq, accepted_at_ms=200_000) for seq in (1, 100_000)]
    listed += [made_row(id="l", seq=seq, accepted_at_ms=0) for seq in range(2, 2 + late)]
    outbox = ListedOutbox(listed)
    found = await Search(outbox, outbox).find(Filter(since_ms=100_000))  # type: ignore[arg-type]
    assert [row.seq for row in found.rows] == ([100_000, 1] if is_found else [100_000])
    assert found.paused_at_ms is None


async def test_late_rows_that_are_not_in_a_row_are_not_added_up() -> None:
    times = {seq: 200_000 if seq in (1, 6, 9) else 0 for seq in range(1, 10)}
    outbox = ListedOutbox(
        made_row(id="e", seq=seq, accepted_at_ms=at_ms) for seq, at_ms in times.items()
    )
    policy = SearchPolicy(first_window=2, window=2, late_rows=4)
    found = await Search(outbox, outbox, policy).find(Filter(since_ms=100_000))  # type: ignore[arg-type]
    assert [row.seq for row in found.rows] == [9, 6, 1]


@pytest.mark.parametrize(
    ("wanted", "before"),
    [
        ({"until_ms": 100_000}, 160),
        ({"until_ms": 100_000, "before_seq": 50}, 50),
        ({"until_ms": 100_000, "before_seq": 190}, 160),
        ({"before_seq": 50}, 50),
    ],
)
async def test_a_search_until_a_time_begins_a_minute_after_it(
    wanted: dict[str, Any], before: int
) -> None:
    for owner in (None, "dev u-1"):
        windows = await looked(ListedOutbox(rows(range(1, 201))), owner=owner, **wanted, **NONE)
        assert windows[0][0] == before


@pytest.mark.parametrize(
    "wanted",
    [{}, {"owner": "dev u-1"}, {"state": State.PENDING}, {"since_ms": 1}, {"until_ms": 2**52}],
)
async def test_a_search_pauses_after_a_second(wanted: dict[str, Any]) -> None:
    outbox, times = ListedOutbox(rows(range(1, 3_001))), iter([7.0, 7.9, 8.0])
    search = Search(outbox, outbox, None, lambda: next(times))  # type: ignore[arg-type]
    assert await search.find(Filter(**NONE, **wanted)) == Found([], 501, 501_000)


@pytest.mark.parametrize("wanted", [{"reason": "rejected"}, {"reason_part": "name"}])
async def test_rows_with_a_reason_are_looked_for_among_the_dead(wanted: dict[str, str]) -> None:
    outbox = ListedOutbox([*rows([1, 2, 3, 4], State.DEAD), *rows(range(5, 60))])
    assert await looked(outbox, **wanted, **NONE) == [(None, 2), (3, None)]
    assert {one.state for one in outbox.asked} == {State.DEAD}
    outbox.asked.clear()
    await looked(outbox, state=State.SENT, **wanted, **NONE)
    assert {one.state for one in outbox.asked} == {State.SENT}


@pytest.mark.parametrize(
    ("others", "state", "last"),
    [
        (0, None, (8, 0)),
        (13, State.PENDING, (21, 0)),
        (12, State.PENDING, (20, None)),  # a window holds all that are left in the state
    ],
)
async def test_an_owner_s_rows_are_gone_through_where_those_of_all_are_many(
    others: int, state: State | None, last: tuple[int | None, int | None]
) -> None:
    own = rows(range(others + 1, others + 10), owner="mine")
    outbox = ListedOutbox([*rows(range(1, others + 1), owner="other"), *own])
    windows = await looked(outbox, owner="mine", state=state, **NONE)
    assert windows == [(None, others + 7), last]


async def test_a_page_ends_with_its_last_row() -> None:
    outbox = ListedOutbox(rows(range(1, 10)))
    search = Search(outbox, outbox, SMALL)  # type: ignore[arg-type]
    found = await search.find(Filter(limit=3))
    assert ([row.seq for row in found.rows], found.next_seq) == ([9, 8, 7], 7)
    assert [one.limit for one in outbox.asked] == [4, 2]
    assert await search.find(Filter(limit=9)) == Found(outbox.rows_in_it[::-1])
    outbox.asked.clear()
    assert await search.count(Filter(limit=3)) == Counted(3, is_bounded=True)
    assert [one.limit for one in outbox.asked] == [4, 2]
    assert await search.count(Filter(limit=9)) == Counted(9, is_bounded=False)
    outbox.asked.clear()
    assert (await list_rows(search, search, Filter(limit=3))).words == "3 of 9"
    assert outbox.asked[2].limit == 100_000 - 3 + 1


@pytest.mark.parametrize(("limit", "looks"), [(1, 1), (2, 2), (9, 2), (10, 3)])
async def test_no_window_is_looked_into_once_a_page_is_full(limit: int, looks: int) -> None:
    outbox = ListedOutbox(rows(range(1, 60)))
    search = Search(outbox, outbox, SMALL)  # type: ignore[arg-type]
    found = await search.find(Filter(limit=limit))
    assert (len(found.rows), found.next_seq, len(outbox.asked)) == (limit, 60 - limit, looks)
    outbox.asked.clear()
    assert await search.count(Filter(limit=limit)) == Counted(limit, is_bounded=True)
    assert len(outbox.asked) == looks


async def test_of_a_beginning_the_rows_in_a_state_are_found_and_more_are_told() -> None:
    outbox = ListedOutbox([*rows([1, 2, 3], State.DEAD), *rows([4])])
    search = Search(outbox, outbox)  # type: ignore[arg-type]
    for limit, is_cut in ((2, True), (3, False)):
        found = await search.find(Filter(id_prefix="e", state=State.DEAD, limit=limit))
        assert ([row.seq for row in found.rows], found.is_cut) == ([3, 2, 1][:limit], is_cut)
    assert {(one.state, one.limit) for one in outbox.asked} == {(None, 10_000)}


async def test_of_an_ambiguous_beginning_eleven_events_are_shown() -> None:
    outbox: Any = ListedOutbox(rows(range(1, 13)))
    found = await find_ids(outbox, ["e-", "e-2", "e-2", "e-", "none", "", "none", "e-1"])
    assert [row.seq for row in found.rows] == [2, 1]
    assert found.unknown == ("none", "")
    [(beginning, shown)] = found.ambiguous
    assert (beginning, [row.seq for row in shown]) == ("e-", list(range(12, 1, -1)))
