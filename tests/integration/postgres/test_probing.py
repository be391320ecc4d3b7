"""What a probe of a PostgreSQL outbox leaves there: an empty change."""

from __future__ import annotations

from service.outbox.postgres.availability import PROBE
from tests.support.postgres_room import Room


def test_a_probe_stores_an_empty_change_only(room: Room) -> None:
    room.wait(1)
    room.claim(1)
    room.run("TRUNCATE outbox_changes")
    before = room.places()
    assert before == {1: "claims"}
    room.run(PROBE)
    assert room.places() == before
    [change] = room.table("changes")
    assert (change["owners"], change["pending"], change["dead"]) == ([], [], 0)
