"""Rows of PostgreSQL that a move leaves out, because their events or their places are gone."""

from __future__ import annotations

from service.outbox.move.transfer import Missing, MissingRow
from service.outbox.postgres.transfer import PostgresTransferEvents
from tests.support.repair_room import RepairRoom


def test_each_row_that_lacks_its_event_or_its_place_is_named(here: RepairRoom) -> None:
    events = PostgresTransferEvents(here.room.connection)
    for seq in (1, 11, 12):
        here.pending(seq)
    for seq in (2, 13):
        here.sent(seq)
    here.done(3)
    here.done(14)
    here.done(4, dead=True)
    here.done(15, dead=True)
    here.room.claim(1)
    here.event(16)
    here.room.run("DELETE FROM outbox WHERE seq BETWEEN 12 AND 15")
    there = {12: "pending", 13: "sent", 14: "delivered", 15: "dead", 16: "unknown"}
    assert events.missing() == Missing(5, tuple(MissingRow(*row) for row in there.items()))
    here.room.run("DELETE FROM outbox WHERE seq = 1")
    assert events.missing().first[0] == MissingRow(1, "delivering")


def test_claims_are_read_from_the_mark_on(here: RepairRoom) -> None:
    here.pending(1)
    here.room.claim(1)
    events = PostgresTransferEvents(here.room.connection)
    [(lease_until,)] = here.room.run("SELECT lease_until FROM outbox_claims")
    here.room.mark(lease_from=lease_until)
    assert events.missing() == Missing(0, ())
    here.room.mark(lease_from="infinity")
    assert events.missing() == Missing(1, (MissingRow(1, "unknown"),))


def test_a_whole_outbox_lacks_nothing(here: RepairRoom) -> None:
    here.pending(1)
    here.sent(2)
    here.done(3)
    assert PostgresTransferEvents(here.room.connection).missing() == Missing(0, ())
