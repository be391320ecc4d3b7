"""What an SQLite outbox keeps of confirmations and of the delivery's state, row by row."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import msgspec
import pytest

from service.outbox.event import Meta
from service.outbox.model import DeliveryRecord
from service.outbox.sqlite import delivery, notes
from service.outbox.sqlite.confirmations import SqliteConfirmations, read_ids
from service.outbox.sqlite.delivery import SqliteDelivery
from service.outbox.sqlite.memory import Memory
from tests.support.sqlite_room import IDS, START_MS, Inline, InlineJobs, Room
from tests.support.storage import event

NOW_MS = 5_000_000


class Desk:
    """Confirmations on a room."""

    def __init__(self) -> None:
        self.room = Room()
        inline = Inline(self.room)
        jobs = InlineJobs(self.room)
        memory = Memory(ids=IDS)
        self.parts = SqliteConfirmations(
            inline,  # type: ignore[arg-type]
            jobs,  # type: ignore[arg-type]
            self.room.counts,
            self.room.clock,  # type: ignore[arg-type]
            memory,
        )

    def sent(self, count: int, **settled: list[int]) -> None:
        """So many rows of an owner each, all sent or settled otherwise."""
        for at in range(count):
            self.room.append(event(f"u-{at + 1}"))
        batch = self.room.claim()
        assert batch
        named = settled or {"sent": list(range(1, count + 1))}
        assert self.room.settle(batch.claim, **named) == 0


async def test_a_sent_row_is_shown_with_its_age_and_what_it_is_found_by() -> None:
    desk = Desk()
    desk.sent(2)
    desk.room.connection.execute(
        "UPDATE outbox SET meta = json_object('moved_id', 'i', 'wire_id', 'w'), accepted_at_ms = 7"
        " WHERE seq = 2"
    )
    desk.room.connection.execute("UPDATE outbox_sent SET sends = 4 WHERE seq = 2")
    desk.room.at(2500)
    first, second = await desk.parts.sent(9)
    names = [
        row[0] for row in desk.room.connection.execute("SELECT event_id FROM outbox ORDER BY seq")
    ]
    assert msgspec.structs.astuple(first)[3:] == (2.5, 1, Meta())
    assert msgspec.structs.astuple(second) == (2, names[1], 7, 2.5, 4, Meta("w", moved_id="i"))
    desk.room.at(-5)  # a clock that was set back
    assert (await desk.parts.sent(1))[0].sent_seconds == 0
    assert desk.parts.inngest_ids == IDS


async def seqs(rows: Any) -> list[int]:
    return [row.seq for row in await rows]


async def test_sent_rows_come_in_pages() -> None:
    desk = Desk()
    desk.sent(5)
    parts = desk.parts
    assert await seqs(parts.sent(2)) == [1, 2]
    assert await seqs(parts.sent(2, 2)) == [3, 4]
    assert await seqs(parts.sent(2, 4)) == [5]
    assert await parts.count_sent() == 5
    assert await parts.may_ask() is True


async def test_delivered_rows_come_in_pages_by_their_age_and_dead_ones_do_not() -> None:
    desk = Desk()
    desk.sent(4, delivered=[1, 2, 3, 4])
    desk.room.connection.execute("UPDATE outbox_done SET dead = 1 WHERE seq = 2")
    desk.room.connection.execute(
        "UPDATE outbox_done SET settled_at_ms = ? WHERE seq = 3", (START_MS + 1000,)
    )
    desk.room.at(2000)
    parts = desk.parts
    assert await seqs(parts.delivered(9)) == [1, 3, 4]
    assert await seqs(parts.delivered(2)) == [1, 3]
    assert await seqs(parts.delivered(9, 3)) == [4]
    assert await seqs(parts.delivered(9, within_seconds=2.0)) == [3]
    assert await seqs(parts.delivered(9, within_seconds=2.5)) == [1, 3, 4]
    assert await seqs(parts.delivered(9, within_seconds=1.5)) == [3]
    assert await seqs(parts.delivered(9, within_seconds=1.0)) == []
    assert [row.sent_seconds for row in await parts.delivered(9)] == [2.0, 1.0, 2.0]
    desk.room.at(-1)
    assert [row.sent_seconds for row in await parts.delivered(1)] == [0]
    desk.room.connection.execute("UPDATE outbox_done SET settled_at_ms = 0")
    assert await seqs(parts.delivered(9)) == [1, 3, 4]


async def test_an_age_of_many_seconds_is_exact() -> None:
    desk = Desk()
    desk.sent(1, delivered=[1])
    desk.room.at(100_000)
    assert await seqs(desk.parts.delivered(9, within_seconds=100.0)) == []
    assert await seqs(desk.parts.delivered(9, within_seconds=100.001)) == [1]


PAST = {"isolated": 1, "attempts": 3, "sends": 4, "first_sent_at_ms": 9, "history": "[1]"}


def with_past(desk: Desk) -> None:
    named = ", ".join(f"{name} = :{name}" for name in PAST)
    desk.room.connection.execute(f"UPDATE outbox_sent SET {named}", PAST)


async def test_a_confirmed_row_is_delivered_with_its_past() -> None:
    desk = Desk()
    desk.sent(3)
    with_past(desk)
    desk.room.at(700)
    assert await desk.parts.confirm([2, 9]) == 1
    assert desk.room.places() == {1: "sent", 2: "done", 3: "sent"}
    settled = {"seq": 2, "dead": 0, "settled_at_ms": START_MS + 700}
    assert desk.room.row(2) == {**settled, **PAST}
    assert await desk.parts.confirm([1, 2]) == 1


async def test_a_row_that_is_sent_again_waits_with_its_past_and_its_answer_is_no_attempt() -> None:
    desk = Desk()
    desk.sent(3)
    with_past(desk)
    desk.room.at(700)
    assert await desk.parts.resend([2, 3, 9], "lost") == 2
    assert desk.room.places() == {1: "sent", 2: "ready", 3: "ready"}
    row = desk.room.row(2)
    assert json.loads(row.pop("history")) == [1, {"at": START_MS + 700, "note": "lost"}]
    waiting = {"seq": 2, "payload_bytes": 200, "due_at_ms": 0, "held": 0, "express": 0}
    assert {**row, "history": "[1]"} == {**waiting, **PAST, "attempts": 2}
    assert desk.room.counts._pending == {"u-2": 1, "u-3": 1}
    assert await desk.parts.resend([2, 3], "lost") == 0


def test_the_prefix_of_ids_is_the_files_own() -> None:
    connection = Room().connection
    [(prefix,)] = connection.execute("SELECT inngest_id_prefix FROM outbox_meta").fetchall()
    assert read_ids(connection).prefix == prefix


class Kept:
    """The delivery's record of a room, at a moment that does not pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (delivery, notes):
            monkeypatch.setattr(module, "wall_now_ms", lambda: NOW_MS)
        self.room, self.memory = Room(), Memory()
        self.delivery = SqliteDelivery(InlineJobs(self.room), self.memory)  # type: ignore[arg-type]

    def stored(self) -> dict[str, Any]:
        connection: sqlite3.Connection = self.room.connection
        cursor = connection.execute("SELECT * FROM outbox_delivery")
        return dict(zip((name for name, *_ in cursor.description), cursor.fetchone(), strict=True))

    def audit(self) -> list[Any]:
        query = "SELECT actor, action, detail FROM outbox_audit ORDER BY id"
        return self.room.connection.execute(query).fetchall()


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    return Kept(monkeypatch)


RECORD = DeliveryRecord(
    *("backing_off", "HTTP 503", 7, 3, 20.0, 99, 12.5),
    destination="cloud",
    confirmation="on",
)


async def test_a_saved_record_is_stored_and_known(kept: Kept) -> None:
    saved = await kept.delivery.save(RECORD)
    assert saved == msgspec.structs.replace(RECORD, revision=1)
    assert await kept.delivery.load() is kept.memory.record is saved
    assert kept.stored() == {
        "single": 1,
        "state": "backing_off",
        "reason": "HTTP 503",
        "batch_window": 7,
        "failures": 3,
        "reopens_at_ms": NOW_MS + 20_000,
        "since_ms": 99,
        "rate": 12.5,
        "paused_by": None,
        "pause_reason": "",
        "revision": 1,
        "destination": "cloud",
        "confirmation": "on",
    }
    assert (await kept.delivery.save(RECORD)).revision == 2


async def test_a_pause_and_its_end_are_stored_known_and_audited(kept: Kept) -> None:
    await kept.delivery.save(RECORD)
    paused = await kept.delivery.set_paused(paused=True, actor="ada", reason="upgrade")
    wanted = {"paused_by": "ada", "pause_reason": "upgrade", "revision": 2}
    assert paused == msgspec.structs.replace(RECORD, **wanted)
    assert kept.memory.record is paused
    resumed = await kept.delivery.set_paused(paused=False, actor="bob", reason="done")
    assert resumed == msgspec.structs.replace(RECORD, revision=3)
    asked = await kept.delivery.set_paused(paused=False, actor="bob", ask_now=True)
    assert asked == msgspec.structs.replace(RECORD, revision=4, reopens_in_seconds=0.0)
    assert kept.stored()["reopens_at_ms"] == 0
    assert kept.audit() == [
        ("ada", "pause", "upgrade"),
        ("bob", "resume", "done"),
        ("bob", "resume", ""),
    ]
