"""`outbox move`: a whole outbox to another store, with its delays; meanwhile none writes to it."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psycopg
import pytest
from typer.testing import CliRunner

from inngest_outbox.bootstrap.operations import _transfer, move_outbox
from inngest_outbox.config.outbox_url import sqlite_url
from inngest_outbox.console.commands.main import app
from inngest_outbox.errors import OutboxMoveError, OutboxUnavailableError
from inngest_outbox.outbox.event import Event, Meta
from inngest_outbox.outbox.keys import IdempotencyKey
from inngest_outbox.outbox.model import Dead, Filter, Retry, Row, Settlement
from inngest_outbox.outbox.schema import migrate
from tests.support.moving import move
from tests.support.postgres_server import PostgresServer
from tests.support.rows import bury
from tests.support.storage import (
    Outbox,
    PostgresStorage,
    SqliteStorage,
    append_all,
    ask,
    claim,
    claims_nothing,
    deliver,
    event,
    eventually,
    ids,
    storage_at,
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
    await outbox.scopes.save_scope("user", "u-1", {"a": [1, None]})
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
                    msgspec.structs.replace(note, note=note.note.replace("\x00", "\ufffd"))
                    for note in row.history
                ),
            )
            for row in before
        ]
        assert await everything(outbox) == clean
        assert await outbox.inspector.payload(before[-4].id) == large
        [keyed] = [row.inngest_id for row in before if row.meta.wire_id == "order-ü"]
        again = await outbox.intake.append(event("ü-2"), key=KEY)
        assert (again.replayed, again.inngest_id) == (True, keyed)
        assert await outbox.scopes.load_scope("user", "u-1") == {"a": [1, None]}
        delivery = await outbox.delivery.load()
        assert delivery is not None
        assert (delivery.paused_by, delivery.pause_reason) == ("ada", "moving")
        actions = [entry.action for entry in await outbox.inspector.audit(10)]
        assert actions == ["move", "pause", "move"]

    retry = await move(target, back)
    assert retry.total == there.total
    async with SqliteStorage(tmp_path / "back.db").open() as outbox:
        assert await everything(outbox) == clean
        assert (await outbox.intake.append(event("ü-2"), key=KEY)).inngest_id == keyed
        batch = await claim(outbox, ask(1000, max_bytes=10**8))
        pending = [row for row in reversed(before) if row.state == "pending"]
        assert ids(batch) == [row.id for row in pending]
        moved_ids = [entry.meta.moved_id for entry in batch.entries]
        assert moved_ids == [row.inngest_id for row in pending]


async def test_an_outbox_that_is_served_or_was_served_since_its_move_is_refused(
    path: Path, target: str
) -> None:
    async with SqliteStorage(path).open() as outbox:
        await append_all(outbox, 3)
        with pytest.raises(OutboxMoveError, match="source is being served"):
            await move(f"sqlite:///{path}", target)
    async with PostgresStorage(target).open():
        with pytest.raises(OutboxMoveError, match="served"):
            await move(f"sqlite:///{path}", target)
    assert (await move(f"sqlite:///{path}", target)).written == 3
    async with PostgresStorage(target).open() as served:
        await append_all(served, 1)
    with pytest.raises(OutboxMoveError):
        await move(f"sqlite:///{path}", target)


async def test_an_interrupted_move_begins_again_and_its_target_takes_nothing_before_the_end(
    path: Path, target: str
) -> None:
    async with SqliteStorage(path).open() as outbox:
        await append_all(outbox, 1100)

    def interrupted(done: int, _: int) -> None:
        if done > 500:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        move_outbox(f"sqlite:///{path}", target, actor="ada", progress=interrupted)
    async with PostgresStorage(target).open() as early:
        with pytest.raises(OutboxUnavailableError):
            await early.intake.append(event())
    moved = await move(f"sqlite:///{path}", target)
    assert (moved.written, moved.total.rows) == (1100, 1100)
    async with PostgresStorage(target).open() as whole:
        await append_all(whole, 1)
        stats = await whole.inspector.stats()
        assert (stats.pending, stats.delivered) == (1101, 0)


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


async def test_there_has_to_be_a_source(tmp_path: Path) -> None:
    target = sqlite_url(tmp_path / "target.db")
    with pytest.raises(OutboxUnavailableError, match="There is no outbox at the source"):
        await move(sqlite_url(tmp_path / "none.db"), target)
    assert not (tmp_path / "none.db").exists()
    with pytest.raises(OutboxMoveError, match="source and the target are the same"):
        await move(target, target)


def test_the_command_says_what_it_did_in_the_schema_of_the_service(
    path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTBOX_SCHEMA", "queue")

    async def fill_it() -> None:
        async with SqliteStorage(path).open() as outbox:
            await bury(outbox, 3)
            await append_all(outbox, 1)
            await deliver(outbox, await claim(outbox))
            await append_all(outbox, 2)

    asyncio.run(fill_it())
    arguments = ["move", "--url", f"sqlite:///{path}", "--to", target, "--actor", "ada"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    counts = "2 pending, 0 sent, 1 delivered, 3 dead"
    said = msgspec.json.decode(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    holds = f"The target holds 6: {counts} (checksum {said['total']['checksum'][:16]})."
    finished = "Count and checksum agree: the move is finished."
    assert result.stdout == f"Wrote 6 rows. {holds}\n{finished}\n"
    assert (said["written"], said["total"]["rows"], said["total"]["pending"]) == (0, 6, 2)
    checked = CliRunner().invoke(app, ["check", "--url", target])
    assert (checked.exit_code, " | pending=2 " in checked.stdout) == (1, True)
    audit = CliRunner().invoke(app, ["audit", "--url", target, "--json"])
    assert [one["actor"] for one in msgspec.json.decode(audit.stdout)] == ["ada", "ada"]


@pytest.mark.parametrize("target", ["nonsense", "sqlite://", "mysql://h/x"])
def test_a_target_without_an_address_is_refused(path: Path, target: str) -> None:
    result = CliRunner().invoke(app, ["move", "--url", f"sqlite:///{path}", "--to", target])
    assert result.exit_code == 2
    assert "write sqlite:///path/to/file" in " ".join(result.stderr.split())


HOUR_MS = 3_600_000


def empty_place(store: str, name: str, folder: Path, server: PostgresServer) -> Iterator[str]:
    if store == "sqlite":
        yield sqlite_url(folder / f"{name}.db")
    else:
        with server.database(name) as url:
            yield url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def source_url(
    request: pytest.FixtureRequest, tmp_path: Path, postgres: PostgresServer
) -> Iterator[str]:
    """The address of an empty outbox in each store."""
    for url in empty_place(request.param, "source", tmp_path, postgres):
        migrate(url)
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def target_url(
    request: pytest.FixtureRequest, tmp_path: Path, postgres: PostgresServer
) -> Iterator[str]:
    """The address of a place for an outbox in each store."""
    yield from empty_place(request.param, "moved", tmp_path, postgres)


def delayed(until_ms: int) -> Event:
    return msgspec.structs.replace(event(), meta=Meta(due_at_ms=until_ms))


def now_ms() -> int:
    return int(time.time() * 1000)


def times(url: str) -> dict[str, int]:
    """Until when the outbox holds each event."""
    with _transfer(url) as there:
        return {one.id: one.meta.due_at_ms for one in there.events.page(0, 99)}


async def due_in(outbox: Outbox, event_id: str) -> float | None:
    [row] = await outbox.inspector.rows(Filter(ids=(event_id,)))
    return row.due_in_seconds


async def test_a_delayed_event_stays_delayed_and_the_others_are_due(
    source_url: str, target_url: str
) -> None:
    async with storage_at(source_url).open() as outbox:
        [retried] = await append_all(outbox, 1)
        batch = await claim(outbox)
        again = Retry(batch.entries[0].seq, 60, attempts=0, isolated=False)
        await outbox.queue.settle(Settlement(batch.claim, retry=[again]))
        later, soon = delayed(now_ms() + HOUR_MS), delayed(now_ms() + 100)
        await outbox.intake.append(later)
        await outbox.intake.append(soon)
        [plain] = await append_all(outbox, 1)
        await eventually(lambda: is_past(soon.meta.due_at_ms))
    await move(source_url, target_url)
    assert times(target_url)[later.id] == later.meta.due_at_ms
    for _ in range(2):
        async with storage_at(target_url).open() as outbox:
            seconds = await due_in(outbox, later.id)
            assert seconds is not None
            assert seconds > 0
    async with storage_at(target_url).open() as outbox:
        found: list[str] = []
        while len(found) < 3:
            found += ids(await claim(outbox))
        assert sorted(found) == sorted([retried.id, soon.id, plain.id])
        assert await claims_nothing(outbox)


async def is_past(ms: int) -> bool:
    return now_ms() > ms


async def test_a_finished_move_stays_so_and_the_file_that_was_left_is_not_served_again(
    path: Path, target: str
) -> None:
    async with SqliteStorage(path).open() as outbox:
        await outbox.intake.append(delayed(now_ms() + HOUR_MS))
    first = await move(sqlite_url(path), target)
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        file.execute("UPDATE outbox_ready SET due_at_ms = 1")  # a time has come since
    again = await move(sqlite_url(path), target)
    assert (again.written, again.total) == (0, first.total)
    with pytest.raises(OutboxMoveError, match="was moved"):
        async with SqliteStorage(path).open():
            pass
    await move(target, sqlite_url(path))
    async with SqliteStorage(path).open() as back:
        assert (await back.inspector.stats()).pending == 1


async def test_a_service_is_seen_whatever_it_calls_itself(path: Path, target: str) -> None:
    migrate(target)
    async with PostgresStorage(f"{target}&application_name=mine").open() as served:
        await append_all(served, 1)

        with pytest.raises(OutboxMoveError, match="source is being served"):
            await move(target, f"sqlite:///{path}")
        assert list(path.parent.iterdir()) == []
        await append_all(served, 1)


async def test_a_role_that_only_connects_can_not_make_an_outbox_look_served(
    path: Path, target: str
) -> None:
    """It may see the advisory locks of others, and take the same."""
    migrate(target)
    with psycopg.connect(target, autocommit=True) as stranger:
        async with PostgresStorage(target).open() as served:
            await append_all(served, 1)
            seen = stranger.execute(
                "SELECT classid, objid FROM pg_locks WHERE locktype = 'advisory'"
            )
            locks = set(seen.fetchall())
        for lock in locks:
            stranger.execute("SELECT pg_advisory_lock_shared(%s::int, %s::int)", lock)
        assert (await move(target, f"sqlite:///{path}")).written == 1


async def test_an_outbox_that_was_left_takes_nothing_more(path: Path, target: str) -> None:
    """A service that the move did not see, as one that hung, learns it from the database."""
    migrate(target)
    async with PostgresStorage(target).open() as unseen:
        await append_all(unseen, 3)
        await unseen.supervisor.stop("outbox-inbox")
        with psycopg.connect(target, autocommit=True) as connection:
            connection.execute("UPDATE outbox.turns SET until = now()")
        await move(target, f"sqlite:///{path}")
        with pytest.raises(OutboxUnavailableError):
            await unseen.intake.append(event())
        assert unseen.failure
        assert "sealed" in unseen.failure
    with (
        psycopg.connect(target) as application,
        pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState),
    ):
        application.execute("SELECT outbox.append('n', '{}')")
    async with SqliteStorage(path).open() as moved:
        assert (await moved.inspector.stats()).pending == 3
