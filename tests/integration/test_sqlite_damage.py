"""A damaged file: it is named at the start or while it is served, read, and never written again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.model import Dead, Filter, Named, Retry, Settlement, State
from inngest_outbox.outbox.sqlite.recovery import find_damage
from inngest_outbox.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from tests.support.disks import small_disk
from tests.support.outbox_command import one_of_each, outbox_command, outbox_json
from tests.support.storage import LIMITS, append_all, ask, claim, deliver, event, ids

PAGE = 4096


async def filled(path: Path, count: int, size: int = 200) -> list[str]:
    """An outbox with pending rows, at rest."""
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        events = [event(size=size) for _ in range(count)]
        for each in events:
            await outbox.intake.append(each)
    return [each.id for each in events]


def change(path: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute(statement)


def spoil_page_of(path: Path, event_id: str) -> None:
    """Overwrite the page that holds the payload of an event."""
    spoil(path, lambda whole: whole.index(f'{{"id":"{event_id}"'.encode()) // PAGE)


def spoil(path: Path, page_of: Callable[[bytes], int]) -> None:
    whole = path.read_bytes()
    page = page_of(whole)
    path.write_bytes(whole[: page * PAGE] + b"\xff" * PAGE + whole[(page + 1) * PAGE :])


def content(path: Path) -> tuple[bytes, bytes]:
    log = path.with_name(f"{path.name}-wal")
    return path.read_bytes(), log.read_bytes().rstrip(b"\0") if log.exists() else b""


async def refuses_all_but_reads(outbox: SqliteOutbox, path: Path) -> None:
    before = content(path)
    assert "damaged" in str(outbox.failure)
    with pytest.raises(OutboxUnavailableError, match=r"damaged.*outbox recover"):
        await outbox.intake.append(event())
    with pytest.raises(OutboxUnavailableError, match="damaged"):
        await claim(outbox)
    for change_it in (
        outbox.queue.settle(Settlement("c", delivered=[1])),
        outbox.repairs.purge(older_than_seconds=0, actor=None),
        outbox.repairs.set_paused(paused=True, actor="ada"),
        outbox.writer.between_commits(outbox.commits.log.checkpoint),
    ):
        with pytest.raises(OutboxUnavailableError, match="damaged"):
            await change_it
    assert (await outbox.inspector.stats()).pending > 0
    assert (await outbox.delivery.load()).state == "healthy"
    assert content(path) == before


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM outbox_ready WHERE seq = 3",
        "DELETE FROM outbox WHERE seq = 3",
        "INSERT INTO outbox_sent SELECT seq, 0, 0, 0, 0, 0, NULL FROM outbox_ready WHERE seq = 3",
    ],
    ids=["no state", "no event", "two states"],
)
async def test_an_event_without_exactly_one_state_is_seen_at_the_start(
    path: Path, damage: str
) -> None:
    await filled(path, 9)
    change(path, damage)
    with structlog.testing.capture_logs() as said:
        async with open_sqlite_outbox(path, **LIMITS) as outbox:
            await refuses_all_but_reads(outbox, path)
    [told] = [line for line in said if line["event"] == "file_damaged"]
    assert (told["file"], "state" in told["reason"]) == (str(path), True)


async def test_a_page_that_can_not_be_read_is_seen_at_the_start(path: Path) -> None:
    wanted = await filled(path, 40, size=1500)
    spoil_page_of(path, wanted[20])
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        assert "damaged" in str(outbox.failure)
        assert (await outbox.inspector.rows(Filter(ids=(wanted[0],))))[0].id == wanted[0]
        with pytest.raises(OutboxUnavailableError, match="damaged"):
            await claim(outbox)


async def test_a_page_that_only_an_event_has_is_looked_at_too(path: Path) -> None:
    await filled(path, 3, size=20_000)
    spoil(path, lambda whole: whole.index(b"x" * (PAGE - 4)) // PAGE)
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        assert "damaged" in str(outbox.failure)


async def test_damage_is_seen_while_the_file_is_served(path: Path) -> None:
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        events = await append_all(outbox, 3)
        change(path, f"DELETE FROM outbox WHERE event_id = '{events[0].id}'")
        assert outbox.failure is None
        with pytest.raises(OutboxUnavailableError, match="damaged"):
            await claim(outbox)
        await refuses_all_but_reads(outbox, path)


async def test_text_that_is_no_text_is_damage(path: Path) -> None:
    await filled(path, 3)
    change(path, "UPDATE outbox SET user_id = CAST(x'75ff2d31' AS TEXT) WHERE seq = 2")
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        with pytest.raises(OutboxUnavailableError, match="damaged"):
            await claim(outbox)
        assert "damaged" in str(outbox.failure)


async def test_a_history_that_can_not_be_read_begins_anew(path: Path) -> None:
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        [one] = await append_all(outbox, 1)

        async def claimed(table: str) -> tuple[str, int]:
            change(path, f"UPDATE outbox_{table} SET history = '[{{'")
            batch = await claim(outbox)
            return batch.claim, batch.entries[0].seq

        async def notes() -> list[str]:
            return [note.note for note in (await outbox.intake.find(one.id)).history]

        token, seq = await claimed("ready")
        retry = [Retry(seq, 0, 1, isolated=False, note="again")]
        await outbox.queue.settle(Settlement(token, retry=retry))
        assert await notes() == ["again"]
        token, _ = await claimed("ready")
        await outbox.queue.settle(Settlement(token, sent=[seq]))
        assert await outbox.confirmations.resend([seq], "lost") == 1
        assert await notes() == ["lost"]
        token, _ = await claimed("ready")
        await outbox.queue.settle(Settlement(token, dead=[Dead(seq, 1, "rejected", "no")]))
        assert await outbox.repairs.replay(Named((one.id,)), actor="ada") == [one.id]
        assert await notes() == ["replayed by ada"]


async def test_a_look_that_takes_too_long_says_how_far_it_came(path: Path) -> None:
    await filled(path, 300, size=1500)
    with (
        contextlib.closing(sqlite3.connect(path)) as file,
        structlog.testing.capture_logs() as said,
    ):
        assert find_damage(file, -1.0) is None
        assert find_damage(file, 60.0) is None
    [told] = [line for line in said if line["event"] == "file_check_incomplete"]
    assert told["checked"] == []


async def test_what_can_be_read_is_recovered_to_a_new_file_and_delivered(
    path: Path, tmp_path: Path
) -> None:
    new = tmp_path / "new.db"
    wanted = await filled(path, 40, size=1500)
    spoil_page_of(path, wanted[20])
    before = content(path)
    code, out, _ = await outbox_command(path, "recover", str(new), "--json")
    found = json.loads(out)
    assert (code, found["rows"] + found["lost"]) == (1, 40)
    assert 1 <= found["lost"] <= 4
    assert content(path) == before
    async with open_sqlite_outbox(new, **LIMITS) as outbox:
        batch = await claim(outbox, ask(100))
        assert len(ids(batch)) == found["rows"]
        assert set(ids(batch)) < set(wanted)
        assert await deliver(outbox, batch) == 0
        assert outbox.failure is None
        await append_all(outbox, 1)


async def test_a_recovery_keeps_states_and_replaces_nothing(path: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.db"
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        written = await one_of_each(outbox)
    code, out, _ = await outbox_command(path, "recover", str(new))
    counts = "0 of them without their state. 0 rows can't be read."
    assert (code, out) == (0, f"Copied 4 rows to {new}, {counts}\n")
    rows = {row["id"]: row["state"] for row in await outbox_json(new, "list")}
    wanted = {event_id: state for state, event_id in written.items()}
    assert rows == {
        one: "pending" if state == "delivering" else state for one, state in wanted.items()
    }
    assert (await outbox_command(path, "recover", str(new)))[0] == 2
    for command, words in (("recover", "own ways to recover"), ("backup", "own backups, such as")):
        code, _, err = await outbox_command("postgresql://h/d", command, str(tmp_path / "x.db"))
        assert (code, f"PostgreSQL has its {words}" in err) == (2, True)


def beginning_with(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}*"))


async def test_a_recovery_to_a_full_disk_leaves_nothing_and_loses_no_row(
    path: Path, tmp_path: Path
) -> None:
    await filled(path, 400, size=5000)
    with small_disk(tmp_path / "small", 1) as folder:
        code, _, err = await outbox_command(path, "recover", str(folder / "new.db"))
        assert (code, "full" in err, beginning_with(folder / "new.db")) == (2, True, [])
    new = tmp_path / "new.db"
    assert (await outbox_command(path, "recover", str(new)))[0] == 0
    assert beginning_with(new) == [new]
    await asyncio.to_thread(path.write_bytes, b"x" * 5000)
    _, _, err = await outbox_command(path, "recover", str(tmp_path / "other.db"))
    assert "Nothing in the file can be read: file is not a database." in err


async def test_a_row_without_its_state_is_recovered_as_pending_and_one_without_its_event_counts(
    path: Path, tmp_path: Path
) -> None:
    new = tmp_path / "new.db"
    wanted = await filled(path, 9)
    change(path, "DELETE FROM outbox_ready WHERE seq IN (5, 6)")
    told = await outbox_json(path, "recover", str(tmp_path / "whole.db"))
    assert told == {"rows": 9, "withoutState": 2, "lost": 0}
    change(path, "DELETE FROM outbox WHERE seq = 2")
    code, out, _ = await outbox_command(path, "check")
    assert (code, "damaged" in out, "outbox recover" in out) == (2, True, True)
    code, out, _ = await outbox_command(path, "recover", str(new), "--json")
    assert (code, json.loads(out)) == (1, {"rows": 8, "withoutState": 2, "lost": 1})
    again = tmp_path / "again.db"
    lost = f"Copied 8 rows to {again}, 2 of them without their state. 1 row can't be read.\n"
    assert await outbox_command(path, "recover", str(again)) == (1, lost, "")
    assert (await outbox_command(new, "check"))[0] == 0
    async with open_sqlite_outbox(new, **LIMITS) as outbox:
        rows = await outbox.inspector.rows(Filter(state=State.PENDING))
        assert {row.id for row in rows} == {*wanted} - {wanted[1]}
