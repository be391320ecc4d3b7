"""With confirmation on, an event is delivered when Inngest holds it, whatever Inngest answered."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from inngest_outbox.bootstrap import delivery
from inngest_outbox.dev.fake_inngest.faults import Reset
from inngest_outbox.dev.fake_inngest.server import FakeInngest
from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.model import Filter, Row, State
from inngest_outbox.relay import unconfirmed
from tests.support.confirmed_delivery import (
    append_events,
    confirmed_delivery,
    event_for_inngest,
)
from tests.support.storage import (
    Outbox,
    PostgresStorage,
    SqliteStorage,
    Storage,
    eventually,
)

# The stores' part is in the contract suite.
ON_SQLITE = pytest.mark.parametrize("storage", ["sqlite"], indirect=True)


@pytest.fixture(params=["sqlite", "postgres"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "sqlite":
        return SqliteStorage(tmp_path / "outbox.db")
    return PostgresStorage(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def outbox(storage: Storage) -> AsyncIterator[Outbox]:
    async with storage.open() as opened:
        yield opened


async def rows(outbox: Outbox, state: State) -> list[Row]:
    return await outbox.inspector.rows(Filter(state=state, limit=10_000))


async def in_state(outbox: Outbox, state: State, count: int) -> None:
    await eventually(lambda: rows(outbox, state), lambda found: len(found) == count)


async def test_an_answered_event_is_sent_until_inngest_stores_it(
    outbox: Outbox, inngest: FakeInngest
) -> None:
    inngest.storing.rate = 0
    await append_events(outbox.intake, 30)
    async with confirmed_delivery(outbox, inngest):
        await inngest.ledger.wait_for_arrivals(30)
        await in_state(outbox, State.SENT, 30)
        assert not await rows(outbox, State.DELIVERED)
        inngest.storing.rate = 1_000
        await in_state(outbox, State.DELIVERED, 30)
    assert inngest.store.event_count == inngest.ledger.arrivals == 30


@ON_SQLITE
async def test_inngest_knows_each_event_by_the_id_that_its_row_shows(
    outbox: Outbox, inngest: FakeInngest
) -> None:
    events = await append_events(outbox.intake, 20)
    async with confirmed_delivery(outbox, inngest):
        await in_state(outbox, State.DELIVERED, 20)
    for event in events:
        [row] = await outbox.inspector.rows(Filter(ids=(event.id,)))
        held = inngest.store.find(row.inngest_id or "")
        assert held is not None
        assert held.id == event.id


async def test_ids_that_clients_chose_are_confirmed_also_where_two_owners_chose_the_same(
    outbox: Outbox, inngest: FakeInngest
) -> None:
    events = [
        event_for_inngest(f"order-{number // 2}", owner=owner, environment=environment)
        for number, (owner, environment) in enumerate(
            [("key a", None), ("key b", None), ("key a", "branch"), ("key b", "branch")] * 5
        )
    ]
    for event in events:
        await outbox.intake.append(event)
    async with confirmed_delivery(outbox, inngest):
        await in_state(outbox, State.DELIVERED, len(events))
    for event in events:
        [row] = await outbox.inspector.rows(Filter(ids=(event.id,)))
        held = inngest.store.find(row.inngest_id or "")
        assert held is not None
        assert held.id == row.meta.wire_id
        assert row.history == ()
    assert inngest.ledger.arrivals == len(events)


@ON_SQLITE
async def test_what_a_stop_lost_arrives_again_and_runs_once(
    outbox: Outbox, inngest: FakeInngest
) -> None:
    inngest.storing.rate = 0
    events = await append_events(outbox.intake, 200)
    async with confirmed_delivery(outbox, inngest):
        await inngest.ledger.wait_for_ids(200)
        inngest.storing.rate = 20
        await eventually(lambda: inngest.store.event_count)
        await inngest.close()
        lost = inngest.storing.lost
        assert lost > 0
        inngest.storing.rate = None
        await inngest.start()
        await in_state(outbox, State.DELIVERED, 200)
    assert inngest.store.id_count == 200
    assert inngest.runs.most_of_an_id == 1
    histories = [row.history for row in await rows(outbox, State.DELIVERED) if row.history]
    assert len(histories) == lost
    assert all("Inngest was away" in history[-1].note for history in histories)
    assert {event.id for event in events} == set(inngest.ledger.ids)


@ON_SQLITE
async def test_the_window_bounds_what_inngest_has_answered_and_not_stored(
    outbox: Outbox, inngest: FakeInngest
) -> None:
    inngest.storing.rate = 0
    await append_events(outbox.intake, 400)
    changes = {"OUTBOX_UNCONFIRMED_MAX": "100", "OUTBOX_BATCH_EVENTS": "50"}
    async with confirmed_delivery(outbox, inngest, **changes):
        await in_state(outbox, State.SENT, 100)
    asked = inngest.questions.requests
    async with confirmed_delivery(outbox, inngest, **changes):
        await eventually(lambda: inngest.questions.requests > asked)
        assert inngest.ledger.arrivals == 100  # those of the process before take room too
        inngest.storing.rate = 2_000
        await in_state(outbox, State.DELIVERED, 400)
    assert inngest.ledger.arrivals == 400


async def test_a_lost_answer_is_not_sent_again_after_inngest_forgot_the_id(
    tmp_path: Path, inngest: FakeInngest
) -> None:
    storage = SqliteStorage(tmp_path / "outbox.db")
    async with storage.open() as outbox:
        await append_events(outbox.intake, 5)
        inngest.faults.add(Reset("stored"), times=None)
        async with confirmed_delivery(outbox, inngest):
            await inngest.ledger.wait_for_ids(1)
    arrivals = inngest.ledger.arrivals
    inngest.faults.clear()
    inngest.clock.move(25 * 3600)
    with contextlib.closing(sqlite3.connect(tmp_path / "outbox.db")) as connection, connection:
        connection.execute("UPDATE outbox_ready SET first_sent_at_ms = first_sent_at_ms - 90000000")
        connection.execute(
            "UPDATE outbox_claims SET first_sent_at_ms = first_sent_at_ms - 90000000,"
            " claimed_at_ms = claimed_at_ms - 90000000"
        )
    connection.close()
    async with storage.open() as outbox, confirmed_delivery(outbox, inngest):
        await in_state(outbox, State.DELIVERED, 5)
    assert inngest.runs.most_of_an_id == 1
    assert inngest.store.id_count == 5
    assert inngest.ledger.arrivals <= arrivals + 4


async def test_without_confirmation_an_answer_is_enough_also_for_rows_that_waited(
    outbox: Outbox, inngest: FakeInngest
) -> None:
    inngest.storing.rate = 0
    await append_events(outbox.intake, 30)
    async with confirmed_delivery(outbox, inngest):
        await in_state(outbox, State.SENT, 30)
    await append_events(outbox.intake, 5)
    async with confirmed_delivery(outbox, inngest, OUTBOX_CONFIRM="off"):
        await in_state(outbox, State.DELIVERED, 35)
    assert not await rows(outbox, State.SENT)


async def test_without_confirmation_rows_are_delivered_later_where_the_store_failed_at_the_start(
    outbox: Outbox, inngest: FakeInngest, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_: object) -> int:
        raise OutboxUnavailableError

    monkeypatch.setattr(delivery, "deliver_unconfirmed", away)
    monkeypatch.setattr(unconfirmed, "_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(unconfirmed, "_LEFT_SECONDS", 0.1)
    inngest.storing.rate = 0
    await append_events(outbox.intake, 10)
    async with confirmed_delivery(outbox, inngest):
        await in_state(outbox, State.SENT, 10)
    async with confirmed_delivery(outbox, inngest, OUTBOX_CONFIRM="off"):
        await in_state(outbox, State.DELIVERED, 10)
