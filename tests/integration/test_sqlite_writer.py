"""The SQLite outbox while its file can't be written: every caller gets an answer, soon."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from service.errors import (
    IdempotencyKeyReusedError,
    OutboxUnavailableError,
    TooManyPendingError,
)
from service.outbox import sqlite_fresh, sqlite_writer
from service.outbox.outbox import Again, Dead, Filter, IdempotencyKey, Settlement, State
from service.outbox.sqlite_outbox import SqliteOutbox, open_sqlite_outbox
from service.outbox.sqlite_upkeep import KEPT_LOG_BYTES
from tests.contract.storage import append_all, ask, claim, deliver, event, eventually, ids


@pytest.fixture
async def outbox(tmp_path: Path) -> AsyncIterator[SqliteOutbox]:
    path = tmp_path / "outbox.db"
    async with open_sqlite_outbox(path, max_pending=1000, max_pending_per_user=100) as opened:
        yield opened


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another connection holds the write lock."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


async def can_append(outbox: SqliteOutbox) -> bool:
    try:
        await outbox.append(event())
    except OutboxUnavailableError:
        return False
    return True


def raising(error: Exception) -> Callable[[sqlite3.Connection], bool]:
    def job(connection: sqlite3.Connection) -> bool:
        connection.execute("UPDATE lane SET reason = 'half done'")
        raise error

    return job


async def test_while_another_holds_the_file_posts_are_refused_soon_and_nothing_is_lost(
    outbox: SqliteOutbox, tmp_path: Path
) -> None:
    first = await append_all(outbox, 3)
    batch = await claim(outbox)
    waiting = asyncio.create_task(claim(outbox))
    with locked(tmp_path / "outbox.db"):
        began = time.monotonic()
        answers = await asyncio.gather(
            *(outbox.append(event()) for _ in range(20)),
            outbox.settle(Settlement(batch.claim, delivered=[batch.entries[0].seq])),
            outbox.save_scope("user", "u-1", {}),
            return_exceptions=True,
        )
        assert {type(answer) for answer in answers} == {OutboxUnavailableError}
        assert time.monotonic() - began < 2.5
        assert "Another process" in str(outbox.failure)
        began = time.monotonic()
        with pytest.raises(OutboxUnavailableError):
            await outbox.append(event())
        assert time.monotonic() - began < 0.5
    await eventually(lambda: can_append(outbox))
    assert outbox.failure is None
    with pytest.raises(OutboxUnavailableError):
        await waiting
    assert await deliver(outbox, batch) == 0
    assert [(await outbox.find(one.id)).state for one in first] == ["delivered"] * 3  # type: ignore[union-attr]
    assert outbox.undelivered == (await outbox.stats()).pending == 1


async def test_a_key_is_answered_also_while_the_file_can_not_be_written(
    outbox: SqliteOutbox, tmp_path: Path
) -> None:
    key = IdempotencyKey("k-1", b"1" * 32)
    first = event()
    await outbox.append(first, key=key)
    with locked(tmp_path / "outbox.db"):
        with pytest.raises(OutboxUnavailableError):
            await outbox.append(event())
        receipt = await outbox.append(event(), key=key)
        assert (receipt.event_id, receipt.replayed) == (first.id, True)
        with pytest.raises(IdempotencyKeyReusedError):
            await outbox.append(event(), key=IdempotencyKey("k-1", b"2" * 32))


async def test_a_faulty_work_harms_no_other_of_its_group(outbox: SqliteOutbox) -> None:
    await append_all(outbox, 1)
    batch = await claim(outbox)
    good, bad = event(), event()
    waiting = asyncio.create_task(claim(outbox))
    answers = await asyncio.gather(
        outbox.append(good),
        outbox._write(raising(ValueError("a bug"))),
        outbox._write(raising(sqlite3.IntegrityError("a constraint"))),
        deliver(outbox, batch),
        outbox.save_scope("user", "u-1", {"a": 1}),
        outbox.append(bad),
        return_exceptions=True,
    )
    assert isinstance(answers[1], ValueError)
    assert isinstance(answers[2], OutboxUnavailableError)
    assert answers[3] == 0
    assert outbox.failure is None
    assert await outbox.load_scope("user", "u-1") == {"a": 1}
    assert ids(await waiting)
    assert (await outbox.load_lane()).reason == ""  # type: ignore[union-attr]
    assert (await outbox.stats()).pending + (await outbox.stats()).delivering == 2


async def test_two_events_of_one_id_are_stored_once_and_harm_no_other(
    outbox: SqliteOutbox,
) -> None:
    twice, other = event(), event()
    answers = await asyncio.gather(
        *(outbox.append(one) for one in (twice, twice, other)), return_exceptions=True
    )
    assert sum(isinstance(answer, OutboxUnavailableError) for answer in answers) == 1
    assert outbox.failure is None
    assert outbox.undelivered == (await outbox.stats()).pending == 2


@pytest.fixture
async def stuck(
    outbox: SqliteOutbox, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[threading.Event]:
    """The disk hangs until the event is set."""
    monkeypatch.setattr(sqlite_writer, "STUCK_SECONDS", 0.1)
    released = threading.Event()
    hanging = outbox.writer.submit(outbox._writes, lambda _: released.wait(20))
    hanging.add_done_callback(lambda done: done.cancelled() or done.exception())
    yield released
    released.set()


async def test_nobody_waits_for_a_disk_that_hangs(
    outbox: SqliteOutbox, stuck: threading.Event
) -> None:
    sent = event()
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(OutboxUnavailableError, match="does not answer"):
            await outbox.save_scope("user", "u-1", {})
        assert time.monotonic() - began < 1
    with pytest.raises(OutboxUnavailableError):
        await outbox.append(sent)
    stuck.set()
    await eventually(lambda: can_append(outbox))
    assert outbox.undelivered == (await outbox.stats()).pending == 1


async def test_what_a_hanging_disk_took_after_all_is_counted(
    outbox: SqliteOutbox, stuck: threading.Event
) -> None:
    """The caller was told that it is not known; it is stored, and delivered."""
    await asyncio.sleep(0)
    appended = asyncio.create_task(outbox.append(event()))
    with pytest.raises(OutboxUnavailableError):
        await appended
    stuck.set()
    await eventually(lambda: can_append(outbox))
    stats = await outbox.stats()
    assert outbox.undelivered == stats.pending


async def test_a_stop_does_not_wait_for_a_disk_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_writer, "STUCK_SECONDS", 0.1)
    released = threading.Event()
    path = tmp_path / "other.db"
    began = time.monotonic()
    try:
        async with open_sqlite_outbox(path, max_pending=9, max_pending_per_user=9) as outbox:
            hanging = outbox.writer.submit(outbox._writes, lambda _: released.wait(20))
            queued = outbox.writer.submit(outbox._writes, lambda _: True)
            await asyncio.sleep(0.05)
        for future in (hanging, queued):
            with pytest.raises((OutboxUnavailableError, asyncio.CancelledError)):
                await future
        assert time.monotonic() - began < 10
    finally:
        released.set()


async def test_a_stop_writes_what_waits(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    async with open_sqlite_outbox(path, max_pending=999, max_pending_per_user=999) as outbox:
        appended = [asyncio.ensure_future(outbox.append(event())) for _ in range(200)]
        await asyncio.sleep(0)
    assert all([await one for one in appended])
    async with open_sqlite_outbox(path, max_pending=999, max_pending_per_user=999) as outbox:
        assert (await outbox.stats()).pending == 200


async def test_a_claim_that_came_as_it_was_cancelled_is_released(outbox: SqliteOutbox) -> None:
    await append_all(outbox, 5)
    waiting = asyncio.create_task(outbox.claim(ask()))
    await asyncio.sleep(0)
    [future] = outbox.writer._waiting[outbox._claims].futures
    for _ in range(1_000_000):
        if future.done():
            break
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    async def released() -> bool:
        return (await outbox.stats()).delivering == 0

    await eventually(released)
    assert [entry.sends for entry in (await claim(outbox)).entries] == [0] * 5


async def test_a_cancelled_claim_leaves_no_row_delivering_without_another_claim(
    outbox: SqliteOutbox,
) -> None:
    await append_all(outbox, 5)
    waiting = asyncio.create_task(outbox.claim(ask()))
    for _ in range(1000):
        await asyncio.sleep(0)
        if outbox._claims in outbox.writer._in_hop:
            break
    waiting.cancel()

    async def released() -> bool:
        stats = await outbox.stats()
        return (stats.pending, stats.delivering) == (5, 0)

    await eventually(released)


async def test_the_count_of_undelivered_rows_stays_true(tmp_path: Path) -> None:
    """Over stale settles, expired leases, discard, replay, restart."""
    path = tmp_path / "other.db"

    async def agrees(outbox: SqliteOutbox) -> None:
        stats = await outbox.stats()
        assert outbox.undelivered == stats.pending + stats.delivering
        assert sum(outbox._counts._by_user.values()) == outbox.undelivered
        assert min(outbox._counts._by_user.values(), default=0) >= 0

    async with open_sqlite_outbox(path, max_pending=1000, max_pending_per_user=1000) as outbox:
        await append_all(outbox, 10, "u-1")
        await append_all(outbox, 10, "u-2")
        late = await claim(outbox, ask(5, lease_seconds=0.05))
        await agrees(outbox)
        batch = await claim(outbox, ask(100))
        while len(batch.entries) < 15:
            batch = await claim(outbox, ask(100))
        again = await claim(outbox, ask(100))
        assert await deliver(outbox, late) == 5
        await agrees(outbox)
        deads = [Dead(entry.seq, 1, "rejected", "bad") for entry in batch.entries]
        await outbox.settle(Settlement(batch.claim, dead=deads))
        await outbox.settle(Settlement(batch.claim, dead=deads))
        await agrees(outbox)
        agains = [Again(entry.seq, 0, 0, alone=False) for entry in again.entries[:2]]
        await outbox.settle(Settlement(again.claim, again=agains))
        await agrees(outbox)
        await outbox.replay(Filter(state=State.DEAD, limit=7), actor="test")
        await agrees(outbox)
        await outbox.discard(Filter(user_id="u-2", limit=4), actor="test")
        await agrees(outbox)
        left = outbox.undelivered
    async with open_sqlite_outbox(path, max_pending=left, max_pending_per_user=1000) as outbox:
        batch = await claim(outbox, ask(3))
        await deliver(outbox, batch)

        async def counted() -> bool:
            return outbox.undelivered == left - len(batch.entries)

        await eventually(counted)
        await agrees(outbox)
        assert sum([await can_append(outbox) for _ in batch.entries]) == len(batch.entries)
        with pytest.raises(Exception, match="full"):
            await outbox.append(event())


async def test_rows_from_before_the_start_fill_a_users_room(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    async with open_sqlite_outbox(path, max_pending=1000, max_pending_per_user=5) as outbox:
        await append_all(outbox, 5)
    async with open_sqlite_outbox(path, max_pending=1000, max_pending_per_user=5) as outbox:

        async def counted() -> bool:
            return outbox.undelivered == 5

        await eventually(counted)
        with pytest.raises(TooManyPendingError):
            await outbox.append(event())
        await outbox.append(event("u-2"))


async def test_what_waited_before_the_start_or_for_minutes_is_not_fresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"max_pending": 100, "max_pending_per_user": 100}
    async with open_sqlite_outbox(tmp_path / "outbox.db", **limits) as outbox:
        old = [each.id for each in await append_all(outbox, 12)]
    monkeypatch.setattr(sqlite_fresh, "PERIOD_MS", 100)
    async with open_sqlite_outbox(tmp_path / "outbox.db", **limits) as outbox:
        wanted = ask(4, fresh_share=0.5)
        assert ids(await claim(outbox, wanted)) == old[:4]
        new = [each.id for each in await append_all(outbox, 3)]
        assert ids(await claim(outbox, wanted)) == [*old[4:6], *new[1:]]
        assert ids(await claim(outbox, ask(1, fresh_share=1.0))) == new[:1]
        await append_all(outbox, 1)
        for _ in range(3):
            await asyncio.sleep(0.12)
            last = await claim(outbox, ask(1, fresh_share=0.5))
        assert ids(last) == old[8:9]
        assert ids(await claim(outbox, ask(2, fresh_share=0.5))) == old[9:11]


async def test_old_delivered_rows_go_and_their_space_comes_back(
    outbox: SqliteOutbox, tmp_path: Path
) -> None:
    path = tmp_path / "outbox.db"
    for _ in range(60):
        await asyncio.gather(*(outbox.append(event(size=100_000)) for _ in range(5)))
        await deliver(outbox, await claim(outbox, ask(max_bytes=1 << 30)))
    await outbox.tidy()
    await outbox.tidy()
    full = path.stat().st_size
    assert full > 25_000_000
    kept = await append_all(outbox, 1)
    assert await outbox.purge(older_than_seconds=-1, actor=None) == 300
    await outbox.tidy()
    await outbox.tidy()
    assert path.stat().st_size < full / 3
    assert (await outbox.find(kept[0].id)) is not None
    assert await outbox.audit(10) == []


async def test_an_idle_outbox_cuts_a_large_log_and_a_reader_only_delays_that(
    outbox: SqliteOutbox, tmp_path: Path
) -> None:
    path = tmp_path / "outbox.db"
    log = path.with_name("outbox.db-wal")
    await append_all(outbox, 1)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM outbox").fetchall()
        for _ in range(6):
            await outbox.append(event(size=1_000_000))
        await outbox.tidy()
        began = time.monotonic()
        await outbox.tidy()
        assert time.monotonic() - began < 0.5
        assert log.stat().st_size > KEPT_LOG_BYTES
    await outbox.tidy()
    assert log.stat().st_size == 0
    await append_all(outbox, 1)
    small = log.stat().st_size
    await outbox.tidy()
    await outbox.tidy()
    assert log.stat().st_size == small > 0


async def test_the_log_stays_bounded_under_constant_load(
    outbox: SqliteOutbox, tmp_path: Path
) -> None:
    log = tmp_path / "outbox.db-wal"
    largest = 0
    for _ in range(80):
        await asyncio.gather(*(outbox.append(event(size=100_000)) for _ in range(5)))
        await deliver(outbox, await claim(outbox, ask(max_bytes=1 << 30)))
        await outbox.stats()
        largest = max(largest, log.stat().st_size)
    assert largest < 20_000_000
