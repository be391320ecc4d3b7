"""Rows as they are listed: the newest first, by state, by filters that are met together."""

from __future__ import annotations

from service.outbox.model import Filter, State
from tests.support.rows import one_of_each
from tests.support.storage import Outbox, append_all


async def test_rows_come_newest_first_up_to_the_limit(outbox: Outbox) -> None:
    events = await append_all(outbox, 5)
    rows = await outbox.inspector.rows(Filter(limit=3))
    assert [row.id for row in rows] == [each.id for each in reversed(events[2:])]


async def test_each_state_can_be_listed(outbox: Outbox) -> None:
    places = await one_of_each(outbox)
    for state, event_id in places.items():
        rows = await outbox.inspector.rows(Filter(state=state))
        assert [(row.id, row.state) for row in rows] == [(event_id, state)]
    rows = await outbox.inspector.rows(Filter())
    assert {row.state: row.id for row in rows} == places


async def test_filters_are_met_together(outbox: Outbox) -> None:
    places = await one_of_each(outbox)
    dead, waiting = places[State.DEAD], places[State.PENDING]

    async def listed(**wanted: object) -> list[str]:
        return [row.id for row in await outbox.inspector.rows(Filter(**wanted))]

    assert await listed(ids=(dead, waiting, "unknown")) == [waiting, dead]
    assert await listed(ids=(dead, dead)) == [dead]
    assert await listed(ids=()) == []
    assert await listed(user_id="u-4") == [waiting]
    assert await listed(name="other/event") == [waiting]
    assert await listed(reason="rejected") == [dead]
    assert await listed(reason="rejected", user_id="u-4") == []
    assert await listed(older_than_seconds=3600) == []
    assert len(await listed(older_than_seconds=-60)) == 4
    assert await listed(user_id='it\'s "quoted"; --') == []
