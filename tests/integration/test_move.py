"""`outbox move`: a whole outbox from SQLite to PostgreSQL, and back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from service.bootstrap.operations import move_outbox
from service.console.commands.main import app
from service.errors import OutboxMoveError, OutboxUnavailableError
from service.outbox.event import Meta
from service.outbox.keys import IdempotencyKey
from service.outbox.model import Dead, Filter, Retry, Row, Settlement
from service.outbox.schema import migrate
from tests.support.moving import move
from tests.support.rows import bury
from tests.support.storage import (
    Outbox,
    PostgresStorage,
    SqliteStorage,
    append_all,
    ask,
    claim,
    deliver,
    event,
    ids,
)

KEY = IdempotencyKey("k-1", b"1" * 32)


async def fill(outbox: Outbox) -> None:
    """Rows in every state, with keys, notes and settings."""
    for note in ("HTTP 500: nul \x00", "HTTP 500: ü"):
        if note.endswith("ü"):
            batch = await claim(outbox)
        else:
            await append_all(outbox, 3)
            batch = await claim(outbox)
        retry = [Retry(entry.seq, 0, 1, isolated=False, note=note) for entry in batch.entries]
        await outbox.queue.settle(Settlement(batch.claim, retry=retry))
    batch = await claim(outbox)
    dead = Dead(batch.entries[0].seq, 4, "rejected", "no \x00 luck")
    rest = [entry.seq for entry in batch.entries[1:]]
    await outbox.queue.settle(Settlement(batch.claim, delivered=rest, dead=[dead]))
    chosen = Meta("order-ü", "branch", trace="00-trace", ts_ms=1)
    large = msgspec.structs.replace(event("ü-2", size=100_000), meta=chosen)
    await outbox.intake.append(large, key=KEY)
    await append_all(outbox, 700, "u-3")
    await claim(outbox, ask(5))
    await outbox.settings.save_scope("user", "u-1", {"a": [1, None]})
    await outbox.repairs.set_paused(paused=True, actor="ada", reason="moving")


def kept(row: Row) -> Row:
    """What of a row a move keeps: all but the running clocks; `inngest_id` has its ULID."""
    meta = msgspec.structs.replace(row.meta, moved_id=None)
    return msgspec.structs.replace(row, due_in_seconds=None, lease_in_seconds=None, meta=meta)


async def everything(outbox: Outbox) -> list[Row]:
    return [kept(row) for row in await outbox.inspector.rows(Filter(limit=10_000))]


async def test_an_outbox_moves_to_postgresql_and_back_with_everything(
    path: Path, target: str, tmp_path: Path
) -> None:
    source, back = f"sqlite:///{path}", f"sqlite:///{tmp_path / 'back.db'}"
    async with SqliteStorage(path).open() as outbox:
        await fill(outbox)
    async with SqliteStorage(path).open() as outbox:
        before = await everything(outbox)
        large = await outbox.inspector.payload(before[-4].id)

    there = await move(source, target)
    assert (there.written, there.total.rows) == (704, 704)
    async with PostgresStorage(target).open() as outbox:
        clean = [
            msgspec.structs.replace(
                row,
                detail=row.detail and row.detail.replace("\x00", "\ufffd"),
                history=tuple(
                    {**note, "note": str(note["note"]).replace("\x00", "\ufffd")}
                    for note in row.history
                ),
            )
            for row in before
        ]
        assert await everything(outbox) == clean
        assert await outbox.inspector.payload(before[-4].id) == large
        assert (await outbox.intake.append(event("ü-2"), key=KEY)).replayed
        assert await outbox.settings.load_scope("user", "u-1") == {"a": [1, None]}
        delivery = await outbox.delivery.load()
        assert delivery is not None
        assert (delivery.paused_by, delivery.pause_reason) == ("ada", "moving")
        actions = [entry.action for entry in await outbox.inspector.audit(10)]
        assert actions == ["move", "pause", "move"]

    retry = await move(target, back)
    assert retry.total == there.total
    async with SqliteStorage(tmp_path / "back.db").open() as outbox:
        assert await everything(outbox) == clean
        batch = await claim(outbox, ask(1000, max_bytes=10**8))
        assert ids(batch) == [row.id for row in reversed(before) if row.state == "pending"]


async def test_a_source_that_is_served_is_refused_and_nothing_is_copied(
    path: Path, target: str
) -> None:
    async with SqliteStorage(path).open() as outbox:
        await append_all(outbox, 3)
        with pytest.raises(OutboxMoveError, match="source is being served"):
            await move(f"sqlite:///{path}", target)
    assert (await move(f"sqlite:///{path}", target)).written == 3


async def test_a_moved_event_keeps_its_id_in_inngest_when_it_is_claimed_and_when_it_is_repeated(
    path: Path, target: str, tmp_path: Path
) -> None:
    source, back = f"sqlite:///{path}", tmp_path / "back.db"
    async with SqliteStorage(path).open() as outbox:
        first = (await outbox.intake.append(event(), key=KEY)).inngest_id
    await move(source, target)
    async with PostgresStorage(target).open() as outbox:
        assert (await outbox.intake.append(event(), key=KEY)).inngest_id == first
        [entry] = (await claim(outbox)).entries
        assert entry.meta.moved_id == first
    await move(target, f"sqlite:///{back}")
    async with SqliteStorage(back).open() as outbox:
        assert (await outbox.intake.append(event(), key=KEY)).inngest_id == first
        [entry] = (await claim(outbox)).entries
        assert entry.meta.moved_id == first


async def test_a_finished_move_into_an_outbox_that_was_served_since_is_refused(
    path: Path, target: str
) -> None:
    async with SqliteStorage(path).open() as outbox:
        await append_all(outbox, 2)
    await move(f"sqlite:///{path}", target)
    async with PostgresStorage(target).open() as served:
        await append_all(served, 1)
    with pytest.raises(OutboxMoveError):
        await move(f"sqlite:///{path}", target)


async def test_an_interrupted_move_begins_again(path: Path, target: str) -> None:
    async with SqliteStorage(path).open() as outbox:
        await append_all(outbox, 1100)

    def interrupted(done: int, _: int) -> None:
        if done > 500:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        move_outbox(f"sqlite:///{path}", target, actor="ada", progress=interrupted)
    moved = await move(f"sqlite:///{path}", target)
    assert (moved.written, moved.total.rows) == (1100, 1100)


async def test_an_outbox_with_events_of_its_own_is_not_overwritten(path: Path, target: str) -> None:
    migrate(target)
    async with PostgresStorage(target).open() as outbox:
        [own] = await append_all(outbox, 1)
    async with SqliteStorage(path).open() as outbox:
        await append_all(outbox, 1)
    with pytest.raises(OutboxMoveError, match="events of its own"):
        await move(f"sqlite:///{path}", target)
    async with PostgresStorage(target).open() as outbox:
        assert await outbox.intake.find(own.id)


async def test_a_target_that_is_served_is_refused(path: Path, target: str) -> None:
    migrate(target)
    async with SqliteStorage(path).open() as outbox:
        await append_all(outbox, 1)
    async with PostgresStorage(target).open():
        with pytest.raises(OutboxMoveError, match="served"):
            await move(f"sqlite:///{path}", target)


async def test_there_has_to_be_a_source(tmp_path: Path, target: str) -> None:
    with pytest.raises(OutboxUnavailableError):
        await move(f"sqlite:///{tmp_path / 'none.db'}", target)
    assert not (tmp_path / "none.db").exists()
    with pytest.raises(OutboxMoveError):
        await move(target, target)


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_command_says_what_it_did(path: Path, target: str, form: str) -> None:
    async def fill_it() -> None:
        async with SqliteStorage(path).open() as outbox:
            await bury(outbox, 3)
            await append_all(outbox, 1)
            await deliver(outbox, await claim(outbox))
            await append_all(outbox, 2)

    asyncio.run(fill_it())
    arguments = ["move", "--url", f"sqlite:///{path}", "--to", target, "--actor", "ada"]
    result = CliRunner().invoke(app, [*arguments, *(["--json"] if form == "json" else [])])
    assert result.exit_code == 0
    if form == "json":
        said = msgspec.json.decode(result.stdout)
        assert (said["written"], said["total"]["pending"]) == (6, 2)
        audit = CliRunner().invoke(app, ["audit", "--url", target, "--json"])
        assert [one["actor"] for one in msgspec.json.decode(audit.stdout)] == ["ada", "ada"]
        return
    counts = "2 pending, 0 sent, 1 delivered, 3 dead"
    assert result.stdout.startswith(f"Wrote 6 rows. The target holds 6: {counts} (checksum ")
    assert result.stdout.endswith(").\nCount and checksum agree: the move is finished.\n")


@pytest.mark.parametrize("target", ["nonsense", "sqlite://", "mysql://h/x"])
def test_a_target_without_an_address_is_refused(path: Path, target: str) -> None:
    result = CliRunner().invoke(app, ["move", "--url", f"sqlite:///{path}", "--to", target])
    assert result.exit_code == 2
    assert "write sqlite:///path/to/file" in " ".join(result.stderr.split())
