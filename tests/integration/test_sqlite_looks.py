"""What is seen of the rows of an SQLite outbox, row by row."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from service.errors import OutboxUnavailableError
from service.outbox.model import Dead, Filter
from service.outbox.sqlite import inspector, notes
from service.outbox.sqlite.inspector import delivery_record
from tests.support.sqlite_looks import NOW_MS, LooksDesk
from tests.support.storage import event
from tests.support.work_kinds import sqlite_error


@pytest.fixture
def desk(path: Path, monkeypatch: pytest.MonkeyPatch) -> LooksDesk:
    for module in (inspector, notes):
        monkeypatch.setattr(module, "wall_now_ms", lambda: NOW_MS)
    return LooksDesk(path)


def dead(seq: int) -> Dead:
    return Dead(seq, attempts=1, reason="rejected", detail="")


def same(seq: int) -> int:
    return seq


@pytest.fixture
def files(path: Path) -> None:
    """A database of 700 bytes and a log of 30."""
    path.write_bytes(bytes(700))
    path.with_name("outbox.db-wal").write_bytes(bytes(30))


@pytest.mark.usefixtures("files")
async def test_figures_count_each_place_once(desk: LooksDesk) -> None:
    desk.rows(*[0] * 15)
    desk.settle(1, dead=dead)
    desk.settle(2, delivered=same)
    desk.settle(3, sent=same)
    desk.room.claim(4)
    stats = await desk.inspector.stats()
    assert (stats.dead, stats.delivered, stats.sent) == (1, 2, 3)
    assert (stats.delivering, stats.pending) == (4, 5)
    assert (stats.database_bytes, stats.wal_bytes) == (700, 30)
    assert stats.delivery.state == "healthy"
    assert not desk.room.connection.in_transaction


async def test_an_empty_outbox_has_no_oldest_row_and_no_file(desk: LooksDesk) -> None:
    stats = await desk.inspector.stats()
    assert (stats.oldest_pending_seconds, stats.oldest_due_seconds) == (None, None)
    assert stats.database_bytes is None


async def test_a_look_that_fails_leaves_no_transaction(desk: LooksDesk) -> None:
    desk.change("DROP TABLE outbox_delivery")
    with pytest.raises(sqlite3.OperationalError):
        await desk.inspector.stats()
    assert not desk.room.connection.in_transaction


async def oldest(desk: LooksDesk) -> tuple[float | None, float | None]:
    stats = await desk.inspector.stats()
    return stats.oldest_pending_seconds, stats.oldest_due_seconds


async def test_the_oldest_row_is_found_also_where_the_clock_was_ahead(desk: LooksDesk) -> None:
    desk.rows(200_000, 90_000, 200_000, 80_000)
    assert await oldest(desk) == (20, 20)
    desk.change("UPDATE outbox_ready SET due_at_ms = ? WHERE seq = 4", NOW_MS + 1)
    assert await oldest(desk) == (20, 10)
    desk.change("UPDATE outbox_ready SET due_at_ms = ? WHERE seq = 4", NOW_MS)
    assert await oldest(desk) == (20, 20)


async def test_a_row_of_this_moment_and_rows_of_the_future_are_new(desk: LooksDesk) -> None:
    desk.rows(200_000)
    assert await oldest(desk) == (0, 0)
    desk.rows(100_000, 100_001)
    assert await oldest(desk) == (0, 0)


async def test_a_claimed_row_still_waits(desk: LooksDesk) -> None:
    desk.rows(10_000, 20_000)
    desk.room.claim(1)
    assert await oldest(desk) == (90, 90)


async def test_the_newest_hundred_and_the_oldest_hundred_are_looked_at(desk: LooksDesk) -> None:
    """Between them the order of acceptance is trusted; no more rows are read."""
    desk.rows(*[50_000] * 99, 40_000, 10_000, 30_000, *[50_000] * 99)
    assert await oldest(desk) == (70, 70)
    desk.change("DELETE FROM outbox_ready WHERE seq = 102")
    assert await oldest(desk) == (90, 90)
    desk.rows(50_000)
    assert await oldest(desk) == (60, 60)


async def test_a_hundred_claimed_rows_are_looked_at(desk: LooksDesk) -> None:
    desk.rows(*[50_000] * 99, 40_000, 30_000)
    desk.room.claim(200)
    assert await oldest(desk) == (60, 60)


async def test_rows_come_newest_first_also_from_a_damaged_file(desk: LooksDesk) -> None:
    ids = desk.rows(1, 2, 3)
    rows = await desk.inspector.rows(Filter(limit=2))
    assert [row.id for row in rows] == [ids[2], ids[1]]
    assert await desk.inspector.count(Filter(limit=9)) == 3
    desk.reads.fault = sqlite_error("SQLITE_CORRUPT")
    rows = await desk.inspector.rows(Filter(limit=9))
    assert [row.id for row in rows] == ids[::-1]
    desk.reads.fault = sqlite_error("SQLITE_CORRUPT")
    rows = await desk.inspector.rows(Filter(before_seq=3, after_seq=1, limit=9))
    assert [row.id for row in rows] == [ids[1]]
    desk.reads.fault = sqlite_error("SQLITE_BUSY")
    with pytest.raises(OutboxUnavailableError):
        await desk.inspector.rows(Filter(limit=9))


async def test_a_row_is_seen_at_this_moment(desk: LooksDesk) -> None:
    desk.rows(1)
    desk.change("UPDATE outbox_ready SET due_at_ms = ?", NOW_MS + 2000)
    [row] = await desk.inspector.rows(Filter())
    assert row.due_in_seconds == 2
    found = [await desk.inspector.count(Filter(older_than_seconds=age)) for age in (99, 100)]
    assert found == [1, 0]


async def test_a_payload_is_found_by_its_id(desk: LooksDesk) -> None:
    given = event()
    desk.room.append(given)
    assert await desk.inspector.payload(given.id) == given.payload
    assert await desk.inspector.payload("another") is None


async def test_the_owners_of_the_most_bytes_come_first(desk: LooksDesk) -> None:
    for owner, size in (("b", 300), ("c", 500), ("a", 300), ("d", 200), ("d", 200)):
        desk.room.append(event(owner, size=size))
    shares = await desk.inspector.owners(4)
    assert [share.owner for share in shares] == ["c", "d", "a", "b"]
    assert [share.owner for share in await desk.inspector.owners(1)] == ["c"]


async def test_the_audit_has_the_newest_acts_whole_and_those_of_an_event(desk: LooksDesk) -> None:
    for action in ("first", "second", "third"):
        await desk.trail.record(action, actor="ada", event_id=f"e-{action}", detail="a look")
    row = "INSERT INTO outbox_audit (act, at_ms, actor, action, detail, ids)"
    older = "FROM outbox_audit WHERE action = 'second'"
    desk.change(f"{row} SELECT act, at_ms, actor, action, detail, '[\"e-more\"]' {older}")
    found = await desk.inspector.audit(2)
    assert [(one.action, one.ids) for one in found] == [
        ("second", ("e-second", "e-more")),
        ("third", ("e-third",)),
    ]
    assert (found[0].at, found[0].actor, found[0].detail) == (NOW_MS, "ada", "a look")
    assert [one.action for one in await desk.inspector.audit(9, event="e-f")] == ["first"]
    assert [one.action for one in await desk.inspector.audit(9, event="e-sec")] == ["second"]
    assert await desk.inspector.audit(9, event="sec") == []


async def test_the_delivery_record_is_the_stored_one(desk: LooksDesk) -> None:
    desk.change(
        "UPDATE outbox_delivery SET state = 'backing_off', reason = 'r', batch_window = 7,"
        " failures = 3, reopens_at_ms = ?, since_ms = ?, rate = 1.5, paused_by = 'ada',"
        " revision = 9, destination = 'd', confirmation = 'c', pause_reason = 'p'",
        NOW_MS + 2500,
        NOW_MS,
    )
    record = await desk.inspector.load_delivery()
    assert (record.state, record.reason, record.window) == ("backing_off", "r", 7)
    assert (record.failures, record.reopens_in_seconds) == (3, 2.5)
    assert (record.since_ms, record.rate, record.paused_by) == (NOW_MS, 1.5, "ada")
    assert (record.revision, record.destination) == (9, "d")
    assert (record.confirmation, record.pause_reason) == ("c", "p")


@pytest.mark.parametrize(
    ("since", "reopens", "seconds"), [(0, -1, 0), (0, 0, 0), (0, 1, 0.001), (1, 9, 0)]
)
def test_a_wait_is_over_after_its_end_or_when_the_clock_was_set_back(
    since: int, reopens: int, seconds: float
) -> None:
    row = ("s", "r", 1, 0, NOW_MS + reopens, NOW_MS + since, 0.0, None, 1, None, None, None)
    assert delivery_record(row, NOW_MS).reopens_in_seconds == seconds
