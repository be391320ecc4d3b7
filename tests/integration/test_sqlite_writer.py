"""The SQLite writer: its file is held, its disk hangs, work fails; every caller is answered."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from inngest_outbox.errors import IdempotencyKeyReusedError, OutboxUnavailableError
from inngest_outbox.outbox.keys import IdempotencyKey
from inngest_outbox.outbox.model import Filter, Settlement, State
from inngest_outbox.outbox.sqlite.commit import Group, Job, SqliteCommits, nothing
from inngest_outbox.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from inngest_outbox.outbox.sqlite.timings import WriterTimings
from tests.support.named_rows import named
from tests.support.posting import can_append
from tests.support.rows import bury
from tests.support.storage import (
    LIMITS,
    PATIENCE_SECONDS,
    append_all,
    ask,
    claim,
    deliver,
    event,
    eventually,
    ids,
)

TURNS = 8  # of the loop, from a post to the writer's queue


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another connection holds the write lock."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def raising(error: Exception) -> Callable[..., bool]:
    def job(connection: sqlite3.Connection, *_: object) -> bool:
        connection.execute("UPDATE outbox_delivery SET reason = 'half done'")
        raise error

    return job


async def test_while_another_holds_the_file_posts_are_refused_soon_and_nothing_is_lost(
    outbox: SqliteOutbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await append_all(outbox, 3)
    batch = await claim(outbox)
    waiting = asyncio.create_task(claim(outbox))
    with locked(tmp_path / "outbox.db"):
        answers = await asyncio.gather(
            *(outbox.intake.append(event()) for _ in range(20)),
            outbox.queue.settle(Settlement(batch.claim, delivered=[batch.entries[0].seq])),
            outbox.scopes.save_scope("user", "u-1", {}),
            return_exceptions=True,
        )
        assert {type(answer) for answer in answers} == {OutboxUnavailableError}
        assert "Another process" in str(outbox.failure)
        with monkeypatch.context() as patch:
            patch.setattr(outbox.writer, "append", None)  # the next one does not wait for it
            with pytest.raises(OutboxUnavailableError):
                await outbox.intake.append(event())
    await eventually(lambda: can_append(outbox))
    assert outbox.failure is None
    with pytest.raises(OutboxUnavailableError):
        await waiting
    assert await deliver(outbox, batch) == 0
    assert [(await outbox.intake.find(one.id)).state for one in first] == ["delivered"] * 3  # type: ignore[union-attr]
    assert outbox.undelivered == (await outbox.inspector.stats()).pending == 1


async def test_who_comes_while_a_post_waits_for_the_file_is_refused_with_it(
    outbox: SqliteOutbox, tmp_path: Path
) -> None:
    with locked(tmp_path / "outbox.db"):
        first = asyncio.create_task(outbox.intake.append(event()))
        await eventually(lambda: outbox.writer.watchdog.group)
        others = [asyncio.create_task(outbox.intake.append(event())) for _ in range(5)]
        groups = outbox.commits.count
        answers = await asyncio.gather(first, *others, return_exceptions=True)
        assert {type(answer) for answer in answers} == {OutboxUnavailableError}
        assert outbox.commits.count == groups + 1
        assert outbox.undelivered == 0


async def test_what_comes_during_a_commit_is_written_though_nothing_follows(
    outbox: SqliteOutbox,
) -> None:
    may_end = threading.Event()
    held = asyncio.create_task(outbox.writer.run(lambda _: may_end.wait(PATIENCE_SECONDS)))
    await eventually(lambda: outbox.writer.watchdog.group)
    later = asyncio.create_task(outbox.intake.append(event()))
    for _ in range(TURNS):
        await asyncio.sleep(0)
    may_end.set()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.gather(held, later)


async def test_a_probe_and_a_late_sync_really_write(outbox: SqliteOutbox, tmp_path: Path) -> None:
    log = tmp_path / "outbox.db-wal"
    await append_all(outbox, 1)
    before = log.read_bytes()
    await outbox.writer.between_commits(outbox.commits._write_something)
    probed = log.read_bytes()
    await outbox.writer._commit(Group())
    assert log.read_bytes() != probed != before


async def test_a_claim_is_synced_soon_and_an_operators_change_before_its_answer(
    outbox: SqliteOutbox,
) -> None:
    await append_all(outbox, 2)
    await claim(outbox, ask(1))
    assert outbox.commits.sync_due_at is not None
    await outbox.repairs.set_paused(paused=True, actor="ops")
    assert outbox.commits.sync_due_at is None
    await claim(outbox, ask(1))
    assert outbox.commits.sync_due_at is not None
    await eventually(lambda: outbox.commits.sync_due_at is None)  # also when no post follows


async def test_a_late_sync_that_finds_the_disk_full_says_so(
    outbox: SqliteOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode, full.sqlite_errorname = sqlite3.SQLITE_FULL, "SQLITE_FULL"
    await append_all(outbox, 1)

    def failing(*_: object) -> None:
        raise full

    with monkeypatch.context() as patch:
        patch.setattr(SqliteCommits, "_transact", failing)
        await outbox.writer._commit(Group())
    assert "disk of the outbox is full" in str(outbox.failure)
    outbox.writer.wake()
    await eventually(lambda: can_append(outbox))
    assert outbox.failure is None


async def test_a_key_is_answered_also_while_the_file_can_not_be_written(
    outbox: SqliteOutbox, tmp_path: Path
) -> None:
    key = IdempotencyKey("k-1", b"1" * 32)
    first = event()
    await outbox.intake.append(first, key=key)
    with locked(tmp_path / "outbox.db"):
        with pytest.raises(OutboxUnavailableError):
            await outbox.intake.append(event())
        receipt = await outbox.intake.append(event(), key=key)
        assert (receipt.event_id, receipt.replayed) == (first.id, True)
        with pytest.raises(IdempotencyKeyReusedError):
            await outbox.intake.append(event(), key=IdempotencyKey("k-1", b"2" * 32))


async def test_a_faulty_work_harms_no_other_of_its_group(outbox: SqliteOutbox) -> None:
    await append_all(outbox, 1)
    batch = await claim(outbox)
    good, bad = event(), event()
    waiting = asyncio.create_task(claim(outbox))
    answers = await asyncio.gather(
        outbox.intake.append(good),
        outbox.writer.run(raising(ValueError("a bug"))),
        outbox.writer.run(raising(sqlite3.IntegrityError("a constraint"))),
        deliver(outbox, batch),
        outbox.scopes.save_scope("user", "u-1", {"a": 1}),
        outbox.intake.append(bad),
        return_exceptions=True,
    )
    assert isinstance(answers[1], ValueError)
    assert isinstance(answers[2], OutboxUnavailableError)
    assert answers[3] == 0
    assert outbox.failure is None
    assert await outbox.scopes.load_scope("user", "u-1") == {"a": 1}
    assert ids(await waiting)
    assert (await outbox.delivery.load()).reason == ""  # type: ignore[union-attr]
    with pytest.raises(OutboxUnavailableError):
        await outbox.writer.run(raising(sqlite3.IntegrityError("a constraint")))
    assert outbox.failure is None
    assert (await outbox.inspector.stats()).pending + (
        await outbox.inspector.stats()
    ).delivering == 2


@pytest.mark.faulty
async def test_a_fault_after_a_commit_is_told_and_takes_nobodys_answer(
    outbox: SqliteOutbox,
) -> None:
    def faulty(result: object) -> None:
        raise ValueError(result)

    answers = await asyncio.gather(
        outbox.writer.run(lambda _: 1, faulty), outbox.writer.run(lambda _: 2)
    )
    assert answers == [1, 2]
    await eventually(lambda: outbox.failure)
    assert outbox.failure == "A fault of the service: ValueError"
    await eventually(lambda: outbox.failure is None)


async def test_an_outbox_that_nobody_asks_is_tried_again_by_itself(
    outbox: SqliteOutbox, tmp_path: Path
) -> None:
    with locked(tmp_path / "outbox.db"), pytest.raises(OutboxUnavailableError):
        await outbox.intake.append(event())
    assert outbox.failure
    await eventually(lambda: outbox.failure is None)


async def test_a_commit_after_one_that_failed_without_a_sync_is_synced(
    outbox: SqliteOutbox,
) -> None:
    with pytest.raises(ValueError, match="a bug"):
        await outbox.writer.submit(Job(raising(ValueError("a bug")), nothing, synced=False))
    await append_all(outbox, 1)
    full = await outbox.writer.between_commits(
        lambda connection: connection.execute("PRAGMA synchronous").fetchall()
    )
    assert full == [(2,)]


async def test_an_outbox_whose_writer_has_ended_takes_nothing(outbox: SqliteOutbox) -> None:
    [writer] = [task for task in asyncio.all_tasks() if task.get_name() == "outbox-writer"]
    writer.cancel()
    await asyncio.wait([writer])
    assert outbox.failure == "The outbox's writer has ended."
    with pytest.raises(OutboxUnavailableError, match="writer has ended"):
        await outbox.intake.append(event())


async def test_two_events_of_one_id_are_stored_once_and_harm_no_other(
    outbox: SqliteOutbox,
) -> None:
    twice, other = event(), event()
    answers = await asyncio.gather(
        *(outbox.intake.append(one) for one in (twice, twice, other)), return_exceptions=True
    )
    assert sum(isinstance(answer, OutboxUnavailableError) for answer in answers) == 1
    assert outbox.failure is None
    assert outbox.undelivered == (await outbox.inspector.stats()).pending == 2


async def test_a_stop_writes_what_waits_and_ends_claims(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        waiting = asyncio.ensure_future(claim(outbox))
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        appended = [asyncio.ensure_future(outbox.intake.append(event())) for _ in range(200)]
        await asyncio.sleep(0)
    assert all([await one for one in appended])
    async with open_sqlite_outbox(path, **LIMITS) as outbox:
        assert (await outbox.inspector.stats()).pending == 200


async def test_a_process_without_free_file_descriptors_says_so_and_recovers(
    outbox: SqliteOutbox, capsys: pytest.CaptureFixture[str]
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # What is open stays open. A limit of 0 would end the threads of this process that poll.
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OutboxUnavailableError, match="file descriptor"):
            await outbox.inspector.stats()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "no_file_descriptors" in capsys.readouterr().out
    assert (await outbox.inspector.stats()).pending == 0


SOON = WriterTimings(stall_seconds=0.1)
Hang = Callable[[], Awaitable[bool]]


@contextlib.contextmanager
def hanging_disk(outbox: SqliteOutbox) -> Iterator[Hang]:
    """A call that hangs until the end, and callers who are told soon.

    Before and after it the outbox is patient: a busy disk is slow, too.
    """
    released = threading.Event()
    patient = outbox.writer._timings
    outbox.writer._timings = outbox.writer.watchdog._timings = SOON
    try:
        yield lambda: outbox.writer.run(lambda _: released.wait(PATIENCE_SECONDS))
    finally:
        outbox.writer._timings = outbox.writer.watchdog._timings = patient
        released.set()


async def test_nobody_waits_for_a_disk_that_hangs(outbox: SqliteOutbox) -> None:
    sent = event()
    with capture_logs() as lines, hanging_disk(outbox) as hang:
        hanging = asyncio.ensure_future(hang())
        await asyncio.sleep(0)
        for _ in range(3):
            with pytest.raises(OutboxUnavailableError, match="does not answer"):
                await outbox.scopes.save_scope("user", "u-1", {})
        with pytest.raises(OutboxUnavailableError):
            await outbox.intake.append(sent)
        hanging.cancel()
    with capture_logs() as later:
        await eventually(lambda: can_append(outbox))
    assert [line["event"] for line in lines] == ["not_writable"]
    assert [line["event"] for line in later] == ["writable_again"]
    assert outbox.undelivered == (await outbox.inspector.stats()).pending == 1


async def test_what_a_hanging_disk_took_after_all_is_known_and_counted(
    outbox: SqliteOutbox,
) -> None:
    """Callers were told that it is not known; it is stored, and delivered."""
    await bury(outbox, 3)
    await append_all(outbox, 2)
    pending = await named(outbox.inspector, Filter(state=State.PENDING))
    dead = await named(outbox.inspector, Filter(state=State.DEAD))
    sent = event()
    with hanging_disk(outbox) as hang:
        answers = await asyncio.gather(
            hang(),
            outbox.intake.append(sent),
            outbox.repairs.discard(pending, actor="ops"),
            outbox.repairs.replay(dead, actor="ops"),
            outbox.repairs.set_paused(paused=True, actor="ops"),
            outbox.scopes.save_scope("user", "u-1", {}),
            return_exceptions=True,
        )
    assert {type(answer) for answer in answers} == {OutboxUnavailableError}
    await eventually(lambda: can_append(outbox))
    assert await outbox.intake.find(sent.id)
    assert outbox.undelivered == (await outbox.inspector.stats()).pending == 5
    assert (await outbox.delivery.load()).paused_by == "ops"
    assert outbox.scopes.scope_revision == 1


@pytest.mark.faulty
async def test_a_stop_does_not_wait_for_a_disk_that_hangs(tmp_path: Path) -> None:
    timings = WriterTimings(stall_seconds=0.5)
    released = threading.Event()
    with contextlib.ExitStack() as disk:
        disk.callback(released.set)
        opening = open_sqlite_outbox(tmp_path / "other.db", **LIMITS, timings=timings)
        async with asyncio.timeout(PATIENCE_SECONDS / 2), opening as one:
            hanging = asyncio.ensure_future(one.writer.run(lambda _: released.wait()))
            await eventually(lambda: one.writer.watchdog.group)
            queued = asyncio.ensure_future(one.writer.run(lambda _: True))
            await asyncio.sleep(0)
        for future in (hanging, queued):
            with pytest.raises((OutboxUnavailableError, asyncio.CancelledError)):
                await future


async def test_a_settlement_that_is_repeated_after_a_hang_lost_no_lease(
    outbox: SqliteOutbox,
) -> None:
    await append_all(outbox, 3)
    batch = await claim(outbox)
    with hanging_disk(outbox) as hang:
        hanging = asyncio.ensure_future(hang())
        settled = asyncio.ensure_future(deliver(outbox, batch))
        with pytest.raises(OutboxUnavailableError):
            await settled
    await asyncio.gather(hanging, return_exceptions=True)
    await eventually(lambda: can_append(outbox))
    assert await deliver(outbox, batch) == 0
    assert await deliver(outbox, batch) == 3
