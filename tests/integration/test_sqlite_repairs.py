"""What operators' commands change in an SQLite outbox, row by row, and what is counted of it."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import msgspec
import pytest

from service.outbox.audit import Act
from service.outbox.model import Dead, Named, State
from service.outbox.retention import PurgedPage
from service.outbox.sqlite import notes, repairs
from service.outbox.sqlite.quota import BytesCount
from service.outbox.sqlite.removal import Removal
from service.outbox.sqlite.repairs import SqliteRepairs
from tests.support.sqlite_room import START_MS, InlineJobs, Room
from tests.support.storage import event

NOW_MS = START_MS + 5000


class Desk:
    """Repairs on a room, with a purge and a pause that only note what they were asked."""

    def __init__(self) -> None:
        self.room, self.asked = Room(), list[Any]()
        self.bytes_count = BytesCount()
        self.removal = Removal(self.bytes_count)
        self.repairs = SqliteRepairs(
            InlineJobs(self.room),  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            self.room.counts,
            self.removal,
            self,  # type: ignore[arg-type]
        )

    async def purge_page(self, after_seq: int, older_than_seconds: float) -> PurgedPage:
        self.asked.append((after_seq, older_than_seconds))
        return PurgedPage(None, 7)

    async def purge_ended(self, removed: int, actor: str | None) -> None:
        self.asked.append((removed, actor))

    async def set_paused(self, **named: Any) -> Any:
        self.asked.append(named)
        return "record"

    def rows(self, *owners: str) -> list[str]:
        """A waiting row of each owner; their ids."""
        given = [msgspec.structs.replace(event("user"), owner=owner) for owner in owners]
        for one in given:
            self.room.append(one)
        return [one.id for one in given]

    def settle(self, count: int, state: str) -> None:
        """Settle the oldest waiting rows."""
        batch = self.room.claim(count)
        assert batch
        seqs = [entry.seq for entry in batch.entries]
        dead = [Dead(seq, attempts=4, reason="rejected", detail="words") for seq in seqs]
        assert self.room.settle(batch.claim, **{state: dead if state == "dead" else seqs}) == 0

    def audit(self) -> list[tuple[Any, ...]]:
        columns = "act, at_ms, actor, action, detail, ids"
        return self.room.connection.execute(f"SELECT {columns} FROM outbox_audit").fetchall()

    def pending(self) -> dict[str, int]:
        return dict(self.room.counts._pending)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    for module in (repairs, notes):
        monkeypatch.setattr(module, "wall_now_ms", lambda: NOW_MS)
    return Desk()


async def test_dead_rows_wait_again_with_their_past_and_no_attempts(desk: Desk) -> None:
    ids = desk.rows("a", "b", "a", "c")
    desk.settle(3, "dead")
    assert desk.pending() == {"c": 1}
    assert await desk.repairs.replay(Named(tuple(ids)), actor="ada") == ids[2::-1]
    assert desk.room.places() == dict.fromkeys((1, 2, 3, 4), "ready")
    assert desk.pending() == {"a": 2, "b": 1, "c": 1}
    row = desk.room.row(1)
    [size] = desk.room.connection.execute("SELECT length(payload) FROM outbox WHERE seq = 1")
    assert (row["payload_bytes"],) == size
    assert (row["attempts"], row["sends"], row["first_sent_at_ms"]) == (0, 1, START_MS)
    assert row["history"] == '[{"at":1005000,"note":"replayed by ada"}]'
    [(_, at_ms, actor, action, detail, named)] = desk.audit()
    assert (at_ms, actor, action, detail) == (NOW_MS, "ada", "replay", "4 given ids")
    assert json.loads(named) == ids[2::-1]


async def test_only_dead_rows_or_delivered_ones_are_replayed(desk: Desk) -> None:
    ids = desk.rows(*"abcde")
    named = tuple(ids)
    desk.settle(1, "dead")
    desk.settle(1, "delivered")
    desk.settle(1, "sent")
    desk.room.claim(1)
    for state in (State.PENDING, State.SENT, State.DELIVERING):
        assert await desk.repairs.replay(Named(named, state), actor="ada") == []
    assert await desk.repairs.replay(Named(named, State.DELIVERED), actor="ada") == [ids[1]]
    assert desk.room.places() == {1: "done", 2: "ready", 3: "sent", 4: "claims", 5: "ready"}
    act = Act("act-7", "by hand")
    assert await desk.repairs.replay(Named(named, State.DEAD), actor="ada", act=act) == [ids[0]]
    assert [desk.audit()[-1][at] for at in (0, 4)] == ["act-7", "by hand"]


async def test_discarded_rows_are_gone_with_what_they_held(desk: Desk) -> None:
    ids = desk.rows(*"aabcd")
    desk.settle(1, "dead")
    desk.room.claim(1)
    before = desk.room.counts.total_bytes
    sizes = "SELECT sum(length(payload)) FROM outbox WHERE seq IN (1, 3, 4, 5)"
    [(freed,)] = desk.room.connection.execute(sizes).fetchall()
    act = Act("act-7", "by hand")
    found = await desk.repairs.discard(Named(tuple(ids)), actor="ada", act=act)
    assert found == [ids[4], ids[3], ids[2], ids[0]]
    assert desk.room.places() == {2: "claims"}
    assert desk.pending() == {"a": 1}
    assert before - desk.room.counts.total_bytes == freed
    [(*said, named)] = desk.audit()
    assert said == ["act-7", NOW_MS, "ada", "discard", "by hand"]
    assert json.loads(named) == found


async def test_only_what_is_named_is_discarded(desk: Desk) -> None:
    ids = desk.rows(*"aba")
    desk.settle(1, "dead")
    for wanted, found in (
        (Named(()), []),
        (Named(tuple(ids), owner="b"), [ids[1]]),
        (Named((ids[0],), State.PENDING), []),
        (Named((ids[0],), never_sent=True), []),
        (Named((ids[2],), never_sent=True), [ids[2]]),
        (Named((ids[0],), State.DEAD), [ids[0]]),
    ):
        assert await desk.repairs.discard(wanted, actor="ada") == found
    assert desk.audit()[1][4] == "3 given ids, owner=b"


async def test_a_purge_and_a_pause_are_passed_on_whole(desk: Desk) -> None:
    assert await desk.repairs.purge(older_than_seconds=60, actor="ada") == 7
    assert desk.asked == [(0, 60), (7, "ada")]
    given = {"paused": True, "actor": "ada", "ask_now": True, "reason": "why"}
    assert await desk.repairs.set_paused(**given) == "record"  # type: ignore[arg-type,comparison-overlap]
    await desk.repairs.set_paused(paused=False, actor="ada")
    plain = {"paused": False, "actor": "ada", "ask_now": False, "reason": ""}
    assert desk.asked[2:] == [given, plain]


def remaining(connection: sqlite3.Connection) -> list[int]:
    return [seq for (seq,) in connection.execute("SELECT seq FROM outbox ORDER BY seq")]


def test_removed_rows_leave_every_place_and_free_what_was_counted(desk: Desk) -> None:
    """Rows 3 and 4 are not counted yet."""
    desk.rows(*"abaabac")
    desk.settle(1, "sent")
    desk.settle(1, "dead")
    desk.bytes_count.counted_to, desk.bytes_count.newest = 2, 4
    found = desk.room.connection.execute("SELECT seq, length(payload) FROM outbox")
    sizes = dict(found.fetchall())
    freed, removed = desk.removal.remove(desk.room.connection, "[1,2,3,4,5,6]")
    assert removed == 6
    assert freed == {"a": sizes[1] + sizes[6], "b": sizes[2] + sizes[5]}
    assert desk.room.places() == {7: "ready"}


def test_the_highest_number_that_was_removed_is_remembered(desk: Desk) -> None:
    def last() -> int:
        [(seq,)] = desk.room.connection.execute("SELECT last_seq FROM outbox_meta")
        return int(seq)

    desk.rows(*"abcde")
    desk.removal.remove(desk.room.connection, "[2]")
    desk.removal.remove(desk.room.connection, "[4,1]")
    assert last() == 4
    desk.removal.remove(desk.room.connection, "[3]")
    assert (last(), remaining(desk.room.connection)) == (4, [5])
