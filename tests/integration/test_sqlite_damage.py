"""A file of which something can't be read: the rest is delivered, and the damage is told."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from service.errors import OutboxUnavailableError
from service.outbox.model import Filter, State
from service.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from tests.support.storage import append_all, claim, deliver, event, eventually, ids

PAGE = 4096


async def filled(path: Path, count: int, size: int = 200) -> list[str]:
    """An outbox with pending rows, at rest."""
    async with open_sqlite_outbox(path, max_pending=1000, max_pending_per_user=1000) as outbox:
        events = [event(size=size) for _ in range(count)]
        for each in events:
            await outbox.intake.append(each)
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return [each.id for each in events]


def spoil(path: Path, change: Callable[[bytes], bytes]) -> None:
    before = path.read_bytes()
    after = change(before)
    assert len(after) == len(before)
    assert after != before
    path.write_bytes(after)


def row_page(path: Path, event_id: str) -> int:
    """The page that holds the row of an event, where its payload is."""
    return path.read_bytes().index(f'{{"id":"{event_id}"'.encode()) // PAGE


async def delivered_all(outbox: SqliteOutbox, count: int) -> list[str]:
    found: list[str] = []
    while len(found) < count:
        try:
            batch = await claim(outbox)
        except OutboxUnavailableError:
            continue  # the relay tries again, too
        found += ids(batch)
        assert await deliver(outbox, batch) == 0
    return found


async def test_a_row_with_text_that_is_no_text_is_set_aside_and_the_others_go_on(
    tmp_path: Path,
) -> None:
    path = tmp_path / "outbox.db"
    wanted = await filled(path, 9)
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("UPDATE outbox SET user_id = CAST(x'75ff2d31' AS TEXT) WHERE seq = 4")
        file.commit()
    async with open_sqlite_outbox(path, max_pending=1000, max_pending_per_user=1000) as outbox:
        assert await delivered_all(outbox, 8) == wanted[:3] + wanted[4:]
        [dead] = await eventually(lambda: outbox.inspector.rows(Filter(state=State.DEAD)))
        assert (dead.id, dead.reason) == (wanted[3], "unreadable")
        assert outbox.failure is None
        assert outbox.undelivered == 0
        await append_all(outbox, 1)


async def test_a_damaged_page_leaves_what_can_be_read_and_takes_nothing_more(
    tmp_path: Path,
) -> None:
    path = tmp_path / "outbox.db"
    wanted = await filled(path, 40, size=1500)
    page = row_page(path, wanted[20])
    spoil(path, lambda whole: whole[: page * PAGE] + b"\xff" * PAGE + whole[(page + 1) * PAGE :])
    async with open_sqlite_outbox(path, max_pending=1000, max_pending_per_user=1000) as outbox:
        found = await delivered_all(outbox, 37)
        assert wanted[20] not in found
        assert len(found) >= 37
        assert set(found) < set(wanted)
        assert "damaged" in str(outbox.failure)
        with pytest.raises(OutboxUnavailableError, match="damaged"):
            await outbox.intake.append(event())
