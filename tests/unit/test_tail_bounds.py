"""Following an outbox: late commits are told, and what is remembered is bounded."""

from __future__ import annotations

import msgspec
import pytest

from inngest_outbox.console.operations.tail import Tail
from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.model import Filter, Row, State
from tests.support.listed_outbox import ListedOutbox
from tests.support.made_row import made_row


def row(seq: int, state: State = State.PENDING, **changes: object):
    return made_row(state, id=f"e-{seq}", seq=seq, **changes)


async def told(tail: Tail, outbox: ListedOutbox) -> list[str]:
    return [f"{one.what} {one.row.seq}" for one in await tail.look(outbox)]


async def test_a_row_that_commits_late_is_told_once_within_two_hundred_numbers() -> None:
    outbox, tail = ListedOutbox(row(seq) for seq in range(799, 1001) if seq != 900), Tail(Filter())
    await tail.begin(outbox, 0)
    assert await told(tail, outbox) == []
    outbox.rows_in_it.append(row(900))
    assert await told(tail, outbox) == ["accepted 900"]
    assert await told(tail, outbox) == []
    outbox.rows_in_it += [row(700), row(1001)]
    assert await told(tail, outbox) == ["accepted 1001"]
    outbox.rows_in_it += [row(1300)]
    assert await told(tail, outbox) == ["accepted 1300"]
    outbox.rows_in_it += [row(1100), row(1101)]
    assert await told(tail, outbox) == ["accepted 1101"]


async def test_late_rows_are_those_near_the_newest_row_whatever_its_state() -> None:
    outbox, tail = ListedOutbox([row(1), row(500, State.DELIVERED)]), Tail(Filter())
    await tail.begin(outbox, 0)
    outbox.rows_in_it += [row(299), row(301)]
    assert await told(tail, outbox) == ["accepted 301"]


class Busy(ListedOutbox):
    """An outbox to which a row comes after each look."""

    async def rows(self, wanted: Filter) -> list[Row]:
        found = await super().rows(wanted)
        self.rows_in_it.append(row(max(one.seq for one in self.rows_in_it) + 1))
        return found


async def test_it_begins_with_the_newest_rows_that_match_and_what_comes_then_is_told() -> None:
    outbox = Busy([*(row(seq) for seq in range(1, 6)), row(6, user_id="u-2")])
    tail = Tail(Filter(user_id="u-1"))
    begun = await tail.begin(outbox, 2)
    assert [(one.what, one.row.seq) for one in begun] == [("pending", 4), ("pending", 5)]
    outbox.rows_in_it[6] = row(7, State.DELIVERED)
    first, second, *news = await told(tail, outbox)
    assert (first, second) == ("accepted 7", "delivered 7")
    assert news == [f"accepted {seq}" for seq in range(8, 8 + len(news))]
    assert len(news) > 4


async def test_a_rare_event_is_looked_for_in_five_thousand_numbers_before_the_last_look() -> None:
    outbox, tail = ListedOutbox([row(10)]), Tail(Filter(user_id="rare"))
    await tail.begin(outbox, 0)
    for newest in (9_000, 9_001):
        outbox.rows_in_it.append(row(newest))
        assert await told(tail, outbox) == []
    outbox.rows_in_it += [row(seq, user_id="rare") for seq in (4_001, 4_002)]
    assert await told(tail, outbox) == ["accepted 4002"]
    find = outbox.rows

    async def away(wanted: Filter) -> list[Row]:
        if wanted.ids:
            raise OutboxUnavailableError
        return await find(wanted)

    outbox.rows = away  # type: ignore[method-assign]
    outbox.rows_in_it += [row(9_002, user_id="rare"), row(20_000)]
    with pytest.raises(OutboxUnavailableError):
        await tail.look(outbox)
    outbox.rows = find  # type: ignore[method-assign]
    assert await told(tail, outbox) == ["accepted 9002"]


async def test_of_very_many_rows_twenty_thousand_are_gone_through() -> None:
    outbox, tail = ListedOutbox([row(1)]), Tail(Filter(user_id="rare"))
    await tail.begin(outbox, 0)
    after_a_gap = [row(60_000)]
    for more, after in (([row(seq) for seq in range(2, 25_002)], 5_001), (after_a_gap, 20_001)):
        outbox.rows_in_it += more
        outbox.asked.clear()
        assert await told(tail, outbox) == []
        assert {one.after_seq for one in outbox.asked} == {None, after}


async def test_the_newest_two_thousand_rows_that_may_change_are_followed() -> None:
    before = [row(1, State.DEAD), *(row(seq) for seq in range(2, 2_006))]
    outbox, tail = ListedOutbox(before), Tail(Filter())
    await tail.begin(outbox, 0)
    outbox.rows_in_it.append(row(2_006))
    assert await told(tail, outbox) == ["accepted 2006"]
    outbox.rows_in_it = [
        row(seq, State.DELIVERED if seq in (6, 7, 2_006) else State.PENDING)
        for seq in range(1, 2_007)
    ]
    assert await told(tail, outbox) == ["delivered 7", "delivered 2006"]


async def test_of_many_new_rows_the_newest_five_thousand_are_told_once() -> None:
    outbox, tail = ListedOutbox(row(seq) for seq in range(1, 201)), Tail(Filter())
    await tail.begin(outbox, 0)
    outbox.rows_in_it += [row(seq) for seq in range(201, 5_701)]
    seen = await told(tail, outbox)
    assert (len(seen), seen[0], seen[-1]) == (5_000, "accepted 701", "accepted 5700")
    assert await told(tail, outbox) == []


async def test_rows_that_were_there_before_are_followed() -> None:
    states = (State.PENDING, State.DELIVERING, State.SENT, State.DEAD)
    outbox = ListedOutbox(row(seq, state) for seq, state in enumerate(states, 1))
    tail = Tail(Filter())
    await tail.begin(outbox, 0)
    outbox.rows_in_it = [row(1), row(2, State.SENT), row(3), row(4)]  # 3 was lost, 4 is replayed
    assert await told(tail, outbox) == ["pending 4", "pending 3", "sent 2"]
    outbox.rows_in_it.clear()
    assert sorted(await told(tail, outbox)) == ["gone 1", "gone 2", "gone 3", "gone 4"]


async def test_each_change_is_told_once_until_its_row_is_delivered_or_gone() -> None:
    outbox, tail = ListedOutbox(row(seq) for seq in range(1, 5)), Tail(Filter())
    deliveries, waits = (Tail(Filter(state=state)) for state in (State.DELIVERED, State.PENDING))
    for each in (tail, deliveries, waits):
        await each.begin(outbox, 0)
    for back in (row(2, sends=1), row(2, sends=1, attempts=1)):
        outbox.rows_in_it[1] = back  # it was sent between two looks
        assert await told(tail, outbox) == await told(waits, outbox) == ["pending 2"]
    outbox.rows_in_it = [row(2, State.DELIVERING), row(4, State.DELIVERED)]
    assert await told(tail, outbox) == ["gone 1", "delivering 2", "gone 3", "delivered 4"]
    assert await told(deliveries, outbox) == ["delivered 4"]
    assert await told(tail, outbox) == []
    outbox.rows_in_it.clear()
    assert await told(tail, outbox) == ["gone 2"]
    assert await told(tail, outbox) == []


async def test_with_a_state_only_changes_into_it_are_told() -> None:
    outbox = ListedOutbox([row(1), row(2, State.DELIVERING, sends=1)])
    tail = Tail(Filter(state=State.PENDING))
    begun = await tail.begin(outbox, 9)
    assert [(one.what, one.row.seq) for one in begun] == [("pending", 1)]
    back = msgspec.structs.replace(row(2, sends=1), attempts=1)
    outbox.rows_in_it = [row(1, State.DELIVERING), back, row(3), row(4, State.DEAD)]
    assert await told(tail, outbox) == ["pending 2", "accepted 3", "accepted 4"]
    outbox.rows_in_it = [row(2, State.DELIVERED)]
    assert await told(tail, outbox) == []
