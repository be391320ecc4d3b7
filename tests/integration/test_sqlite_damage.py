"""A file of which something can't be read: the rest is delivered, and the damage is told."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from service.errors import OutboxUnavailableError
from service.outbox.model import Filter, Settlement, State
from service.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from tests.support.outbox_command import one_of_each, outbox_command, outbox_json
from tests.support.storage import append_all, ask, claim, deliver, event, eventually, ids

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
        stats = await eventually(outbox.inspector.stats, lambda seen: seen.pending == 0)
        assert stats.dead == 40 - len(found)
        assert await outbox.inspector.rows(Filter(state=State.DEAD)) == []
        assert len(await outbox.inspector.rows(Filter())) == len(found)
        with pytest.raises(OutboxUnavailableError, match="damaged"):
            await outbox.intake.append(event())


async def test_what_can_be_read_is_recovered_to_a_new_file_and_delivered(tmp_path: Path) -> None:
    path, new = tmp_path / "outbox.db", tmp_path / "new.db"
    wanted = await filled(path, 40, size=1500)
    page = row_page(path, wanted[20])
    spoil(path, lambda whole: whole[: page * PAGE] + b"\xff" * PAGE + whole[(page + 1) * PAGE :])
    code, out, _ = await outbox_command(path, "recover", str(new), "--json")
    found = json.loads(out)
    assert code == 1
    assert found["rows"] + found["lost"] == 40
    assert 1 <= found["lost"] <= 4
    async with open_sqlite_outbox(new, max_pending=1000, max_pending_per_user=1000) as outbox:
        delivered = await delivered_all(outbox, found["rows"])
        assert outbox.failure is None
        assert [one for one in wanted if one in delivered] == delivered
        await append_all(outbox, 1)


async def test_a_recovery_keeps_states_and_works_on_a_whole_file(tmp_path: Path) -> None:
    path, new = tmp_path / "outbox.db", tmp_path / "new.db"
    async with open_sqlite_outbox(path, max_pending=1000, max_pending_per_user=1000) as outbox:
        written = await one_of_each(outbox)
    assert (await outbox_command(path, "recover", str(new)))[0] == 0
    rows = {row["id"]: row["state"] for row in await outbox_json(new, "list")}
    kept = {event_id: state for state, event_id in written.items()}
    assert rows == {
        one: "pending" if state == "delivering" else state for one, state in kept.items()
    }
    assert (await outbox_command(path, "recover", str(new)))[0] == 2


async def without_event(path: Path, place: str) -> str:
    """An outbox at rest with rows in each place, of which one in `place` has lost its event."""
    async with open_sqlite_outbox(path, max_pending=1000, max_pending_per_user=1000) as outbox:
        await append_all(outbox, 9)
        batch = await claim(outbox, ask(2))
        await outbox.queue.settle(
            Settlement(batch.claim, sent=[entry.seq for entry in batch.entries])
        )
        await claim(outbox, ask(2))
    with contextlib.closing(sqlite3.connect(path)) as file:
        [(lost,)] = file.execute(
            f"SELECT event_id FROM outbox WHERE seq = (SELECT max(seq) FROM outbox_{place})"
        ).fetchall()
        file.execute("DELETE FROM outbox WHERE event_id = ?", (lost,))
        file.commit()
    return str(lost)


@pytest.mark.parametrize("place", ["ready", "claims"])
async def test_a_row_without_its_event_is_set_aside_and_the_others_are_delivered(
    tmp_path: Path, place: str
) -> None:
    path = tmp_path / "outbox.db"
    lost = await without_event(path, place)
    with structlog.testing.capture_logs() as said:
        async with open_sqlite_outbox(path, max_pending=1000, max_pending_per_user=1000) as outbox:
            found = await delivered_all(outbox, 6)
            assert lost not in found
            assert len(set(found)) == 6
            stats = await outbox.inspector.stats()
            assert (stats.pending, stats.sent, stats.dead) == (0, 2, 1)
            with pytest.raises(OutboxUnavailableError, match="damaged"):
                await outbox.intake.append(event())
    [told] = [line for line in said if line["event"] == "file_damaged"]
    assert told["file"] == str(path)
    assert "1 waiting row names an event that the file lacks" in told["reason"]
    assert "outbox recover" in told["advice"]
    assert "backup" in told["advice"]


@pytest.mark.parametrize("place", ["ready", "claims", "sent"])
async def test_a_row_without_its_event_is_reported_before_a_service_finds_it(
    tmp_path: Path, place: str
) -> None:
    path, new = tmp_path / "outbox.db", tmp_path / "new.db"
    await without_event(path, place)
    code, out, _ = await outbox_command(path, "check")
    assert code == 2
    assert "1 waiting row names an event that the file lacks" in out
    code, out, _ = await outbox_command(path, "recover", str(new), "--json")
    assert (code, json.loads(out)["rows"], json.loads(out)["lost"]) == (1, 8, 1)
    assert (await outbox_command(new, "check"))[0] == 0


async def test_an_event_that_vanishes_under_a_service_is_found_by_the_claim(
    tmp_path: Path,
) -> None:
    path = tmp_path / "outbox.db"
    async with open_sqlite_outbox(path, max_pending=1000, max_pending_per_user=1000) as outbox:
        events = await append_all(outbox, 3)
        with contextlib.closing(sqlite3.connect(path)) as file:
            file.execute("DELETE FROM outbox WHERE event_id = ?", (events[0].id,))
            file.commit()
        assert outbox.failure is None
        with pytest.raises(OutboxUnavailableError, match="damaged"):
            await claim(outbox)
        assert "damaged" in str(outbox.failure)
        assert await delivered_all(outbox, 2) == [one.id for one in events[1:]]
