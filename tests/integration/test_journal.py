"""The journal: what is in the bucket before an answer, what a lost disk brings back.

Most tests have a bucket in memory, which keeps what a real one keeps (see the test of both), and
an outbox without a thread in virtual time. Those of the client and of people have a real S3 API.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import math
import random
import re
import shutil
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import ClientSession
from botocore.exceptions import ClientError
from structlog.testing import capture_logs

from inngest_outbox.bootstrap import journal as journal_parts
from inngest_outbox.bootstrap.stores import open_outbox
from inngest_outbox.config.settings import Settings
from inngest_outbox.console.operations.explain import counted
from inngest_outbox.documents.boto import s3_errors
from inngest_outbox.documents.bucket import Bucket
from inngest_outbox.errors import (
    ConfigurationError,
    IdempotencyKeyReusedError,
    OutboxUnavailableError,
    StorageUnavailableError,
)
from inngest_outbox.journal import bucket, comparison, journal, upkeep
from inngest_outbox.journal.bucket import JournalBucket
from inngest_outbox.journal.contents import Contents, Stored
from inngest_outbox.journal.journal import JournalTimings, Pace, S3Journal
from inngest_outbox.journal.objects import decode_group, encode_group
from inngest_outbox.journal.upkeep import Upkeep
from inngest_outbox.observe.recorder import NullRecorder, Recorder
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.outbox.keys import IdempotencyKey, plain_digests
from inngest_outbox.outbox.model import Dead, Filter, Named, Settlement, State
from inngest_outbox.outbox.sqlite.file import connection
from inngest_outbox.outbox.sqlite.file.journalled import JournalRow
from inngest_outbox.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from tests.support.free_port import free_port
from tests.support.journal.bucket import BucketLine, MemoryBucket
from tests.support.outbox_command import outbox_command, outbox_json
from tests.support.poster import Poster
from tests.support.service_here import service_here
from tests.support.simulation.inline_world import in_one_thread
from tests.support.sqlite_faults import sqlite_error
from tests.support.storage import (
    PATIENCE_SECONDS,
    PATIENT_WRITER,
    append_all,
    ask,
    claim,
    deliver,
    event,
    eventually,
)
from tests.support.virtual_time import in_virtual_time, now

REGION = "eu-west-1"
# A machine that stalls is no bucket that is away.
PATIENT = JournalTimings(put_seconds=PATIENCE_SECONDS, patience_seconds=PATIENCE_SECONDS)
QUICK = replace(
    PATIENT,
    step_seconds=0.02,
    live_seconds=0.1,
    ask_seconds=0.6,
    sweep_seconds=0.05,
    dead_seconds=0.1,
)
LOST_START = "0123456789ab"
_folders = itertools.count()


class HeldBucket(MemoryBucket):
    """One that can't be reached while `is_away`, and takes no groups while `may_put` is clear."""

    def __init__(self) -> None:
        super().__init__(random.Random(1))
        self.is_away = False
        self.may_put = asyncio.Event()
        self.may_put.set()

    def groups(self) -> list[str]:
        """The names of the groups."""
        return [name for name, (data, _) in self.objects.items() if data and "/0" in name]

    def voids(self) -> list[str]:
        """The names of the objects without content."""
        return [name for name, (data, _) in self.objects.items() if not data]

    def kinds(self) -> set[str]:
        return {re.search("live|mark|/0", name)[0] for name in self.objects}

    def stored(self) -> dict[str, bool]:
        """The events: their ids, with `dead` where they are told to be."""
        bodies = [self.objects[name][0] for name in self.groups()]
        return {row.id: row.dead for body in bodies for row in decode_group(body).rows}


class HeldLine(BucketLine):
    async def put(self, name: str, data: bytes, **options: Any) -> bool:
        if "/0" in name:
            await self._bucket.may_put.wait()
        return await super().put(name, data, **options)

    async def _request(self) -> None:
        await super()._request()
        if self._bucket.is_away:
            raise StorageUnavailableError("S3 can't be reached.")


@dataclass
class Opened:
    """An outbox with a journal."""

    outbox: SqliteOutbox
    upkeep: Upkeep

    async def ids(self) -> set[str]:
        """The ids of its events."""
        return {row.id for row in await self.outbox.inspector.rows(Filter())}

    async def discard(self, event_id: str) -> list[str]:
        return await self.outbox.repairs.discard(Named(ids=(event_id,)), actor="ada")

    async def replay_delivered(self, event_id: str) -> list[str]:
        again = Named((event_id,), State.DELIVERED)
        return await self.outbox.repairs.replay(again, actor="ada")


class Turns(NullRecorder):
    """Counts the turns of the upkeep, and has the figures."""

    made = 0

    def __init__(self) -> None:
        self.figures = Counter[str]()

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        self.figures[name] = value
        self.made += name == "journal_away"

    def count(self, name: str, value: float = 1, /, **labels: str) -> None:
        self.figures[name] += value

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        self.figures[name] += 1

    async def some(self, turns: int) -> None:
        """So many turns from now."""
        later = self.made + turns
        await eventually(lambda: self.made >= later)


class Clock:
    """The loop's clock, ahead by `ahead_seconds`."""

    ahead_seconds = 0.0

    def __call__(self) -> float:
        return now() + self.ahead_seconds


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    """A command waits for a busy machine, too."""
    monkeypatch.setattr(journal, "JournalTimings", lambda: PATIENT)
    monkeypatch.setattr(bucket, "_ASK_SECONDS", PATIENCE_SECONDS)


@pytest.fixture
def held() -> HeldBucket:
    """The bucket in memory."""
    return HeldBucket()


@pytest.fixture
def journalled(held, tmp_path):
    """Open an outbox with a journal; in a new folder where none is given."""

    @contextlib.asynccontextmanager
    async def opened(
        folder: Path | None = None,
        *,
        line: JournalBucket | BucketLine | None = None,
        accepts: bool = False,
        destination: str = "one",
        recorder: Recorder | None = None,
        **timings: Any,
    ) -> AsyncIterator[Opened]:
        folder = folder or tmp_path / f"disk-{next(_folders)}"
        folder.mkdir(exist_ok=True)
        made = S3Journal(
            line or HeldLine(held),
            destination,
            recorder or NullRecorder(),
            accepts=accepts,
            timings=replace(QUICK, **{"clock": asyncio.get_running_loop().time, **timings}),
        )
        async with open_sqlite_outbox(
            folder / "outbox.db",
            max_pending=1000,
            max_pending_per_user=1000,
            timings=PATIENT_WRITER,
            journal=made,
        ) as outbox:
            upkeep = Upkeep(made, outbox.journalled)
            async with upkeep.running():
                yield Opened(outbox, upkeep)

    return opened


@in_one_thread
async def test_an_event_is_in_the_bucket_before_it_is_answered(journalled, held):
    async with journalled() as one:
        sent = event()
        receipt = await one.outbox.intake.append(sent)
        assert held.stored() == {sent.id: False}
        assert held.groups() == [f"{receipt.ids.prefix.hex()}/{receipt.seq:016d}-1"]


async def test_a_lost_disk_brings_every_event_back_under_its_ids(journalled, bucket_name):
    async with Bucket(bucket_name, REGION) as opened:
        line = JournalBucket(opened, "a/b")
        async with journalled(line=line) as one:
            long_ago_ms = wall_now_ms() - 25 * 3600 * 1000
            old = msgspec.structs.replace(event(), accepted_at_ms=long_ago_ms)
            receipts = [await one.outbox.intake.append(each) for each in (event(), old, event())]
            key = IdempotencyKey.of("k", b"body", plain_digests)
            keyed = await one.outbox.intake.append(event(), key=key)
        async with journalled(line=line) as two:
            rows = await two.outbox.inspector.rows(Filter())
            assert {row.id for row in rows} == {one.event_id for one in [*receipts, keyed]}
            assert {(row.state, row.sends) for row in rows} == {(State.PENDING, 1)}
            assert all(row.first_sent_at_ms == row.accepted_at_ms for row in rows)
            assert two.outbox.undelivered == 4
            ids = two.outbox.confirmations.inngest_ids
            again = {
                one.event_id: ids.ulid(one.seq, one.accepted_at_ms, one.meta)
                for one in (await claim(two.outbox)).entries
            }
            assert again == {one.event_id: one.inngest_id for one in [*receipts, keyed]}
            replayed = await two.outbox.intake.append(event(), key=key)
            assert (replayed.event_id, replayed.replayed) == (keyed.event_id, True)
            assert replayed.inngest_id == keyed.inngest_id
            other = IdempotencyKey.of("k", b"another", plain_digests)
            with pytest.raises(IdempotencyKeyReusedError):
                await two.outbox.intake.append(event(), key=other)
            assert (two.upkeep.state.restored, two.upkeep.state.may_run_twice) == (4, 1)


@in_one_thread
async def test_what_came_back_is_safe_from_a_second_loss(journalled, held, monkeypatch):
    turns = Turns()
    async with journalled() as one:
        sent = await append_all(one.outbox, 5)
    old = held.groups()
    monkeypatch.setattr(upkeep, "_PUT_BYTES", 300)  # they need three objects
    async with journalled(dead_seconds=60.0, recorder=turns) as two:
        await eventually(lambda: set(held.groups()).isdisjoint(old))
        assert set(held.stored()) == {each.id for each in sent}
        assert len(held.groups()) == 3
        assert two.upkeep.state.missing == 0
        assert turns.figures["journal_restored"] == 5
    async with journalled() as three:
        assert three.upkeep.state.restored == 5


@in_one_thread
async def test_a_dead_event_comes_back_dead_and_its_delivered_neighbours_do_not(journalled, held):
    async with journalled(late_seconds=0.2) as one:
        long_ago_ms = event().accepted_at_ms - 2 * 86_400_000
        old = msgspec.structs.replace(event(), accepted_at_ms=long_ago_ms)
        sent = [old, event(), event()]
        await asyncio.gather(*map(one.outbox.intake.append, sent))
        batch = await claim(one.outbox)
        first, *others = [entry.seq for entry in batch.entries]
        dead = Dead(first, 1, "rejected", "in Inngest's words")
        await one.outbox.queue.settle(Settlement(batch.claim, delivered=others, dead=[dead]))
        await eventually(lambda: held.stored() == {sent[0].id: True})
        assert await one.replay_delivered(sent[1].id) == [sent[1].id]
        await eventually(lambda: held.stored() == {sent[0].id: True, sent[1].id: False})
        await deliver(one.outbox, await claim(one.outbox))
        await eventually(lambda: held.stored() == {sent[0].id: True})
    async with journalled() as two:
        [row] = await two.outbox.inspector.rows(Filter())
        assert (row.id, row.state, row.reason) == (sent[0].id, State.DEAD, "rejected")
        assert row.detail == "in Inngest's words"
        state = two.upkeep.state
        assert (state.restored, state.restored_dead, state.may_run_twice) == (1, 1, 0)
        assert two.outbox.undelivered == 0


@in_one_thread
async def test_the_bucket_knows_what_became_of_an_event_alone_in_its_object(journalled, held):
    async with journalled() as one:
        [sent] = await append_all(one.outbox, 1)
        batch = await claim(one.outbox)
        dead = [Dead(batch.entries[0].seq, 1, "rejected", "")]
        await one.outbox.queue.settle(Settlement(batch.claim, dead=dead))
        await eventually(lambda: held.stored() == {sent.id: True})
        await one.outbox.repairs.replay(Named((sent.id,)), actor="ada")
        await deliver(one.outbox, await claim(one.outbox))
        await eventually(lambda: not held.groups())
        assert await one.replay_delivered(sent.id) == [sent.id]
        await eventually(lambda: held.stored() == {sent.id: False})


@in_one_thread
async def test_an_object_goes_when_all_its_events_are_delivered(
    journalled, held, tmp_path, monkeypatch
):
    monkeypatch.setattr(comparison, "_KEPT_IDS", 2)
    folder = tmp_path / "kept"
    async with journalled(folder) as one:
        await append_all(one.outbox, 4)
        [name] = held.groups()
        late, _ = held.objects[name]
        await deliver(one.outbox, await claim(one.outbox))
        await eventually(lambda: not held.groups())
        await one.outbox.repairs.purge(older_than_seconds=-1, actor=None)
    assert not held.objects  # not the start's own, too
    async with journalled(folder):
        pass
    held.put(name, late, is_new=False)  # a try of its put lands
    async with journalled(folder) as three:
        assert three.upkeep.state.restored == 0
        await eventually(lambda: not held.groups())
    for _ in range(2):
        async with journalled(folder) as five:
            assert len(await five.outbox.journalled.begin()) <= 3  # not each start for ever


async def test_an_object_that_is_there_before_its_commit_is_not_taken_for_a_settled_one(
    journalled, held, monkeypatch
):
    class HeldCommits(sqlite3.Connection):
        def execute(self, sql, *args):
            if sql == "COMMIT":
                may_commit.wait(PATIENCE_SECONDS)
            return super().execute(sql, *args)

    may_commit, turns = threading.Event(), Turns()
    may_commit.set()
    connect = functools.partial(sqlite3.connect, factory=HeldCommits)
    monkeypatch.setattr(connection, "sqlite3", _With(sqlite3, connect=connect))
    async with journalled(sweep_seconds=0.0, dead_seconds=60.0, recorder=turns) as one:
        may_commit.clear()
        sending = asyncio.create_task(append_all(one.outbox, 1))
        await eventually(held.groups)
        await turns.some(2)
        may_commit.set()
        assert set(held.stored()) == {each.id for each in await sending}


async def test_a_group_whose_commit_failed_does_not_come_back(journalled, held, monkeypatch):
    class FailingCommits(sqlite3.Connection):
        def execute(self, sql, *args):
            if sql == "COMMIT" and fails:
                time.sleep(0.3)  # its put is there by now
                raise sqlite_error("SQLITE_FULL")
            return super().execute(sql, *args)

    fails: list[bool] = []
    connect = functools.partial(sqlite3.connect, factory=FailingCommits)
    monkeypatch.setattr(connection, "sqlite3", _With(sqlite3, connect=connect))
    async with journalled() as one:
        [before] = await append_all(one.outbox, 1)
        fails.append(True)
        with pytest.raises(OutboxUnavailableError):
            await one.outbox.intake.append(event())
        fails.clear()
        await eventually(lambda: one.outbox.failure is None)
        later = await one.outbox.intake.append(event())
        assert len(held.groups()) == 2
        held.may_put.clear()  # a put that is under way may land, too
        fails.append(True)
        with pytest.raises(OutboxUnavailableError):
            await one.outbox.intake.append(event())
        fails.clear()
        held.may_put.set()
        await eventually(lambda: len(held.voids()) == 2)
    async with asyncio.timeout(PATIENCE_SECONDS), journalled() as two:
        assert await two.ids() == {before.id, later.event_id}
        held.is_away = True  # the stop does not wait until a group is void
        fails.append(True)
        with pytest.raises(OutboxUnavailableError):
            await two.outbox.intake.append(event())


@in_one_thread
async def test_a_part_of_an_object_that_lands_late_goes_and_the_whole_one_stays(
    journalled, held, tmp_path
):
    async with journalled(tmp_path / "kept") as one:
        await append_all(one.outbox, 3)
        [name] = held.groups()
    content = decode_group(held.objects[name][0])
    part = encode_group(content.id, "one", content.rows[1:2])
    held.put(f"{content.id}/{content.rows[1].seq:016d}-1", part, is_new=True)
    async with journalled(tmp_path / "kept") as two:
        await eventually(lambda: held.groups() == [name])
        assert (two.upkeep.state.missing, two.upkeep.state.restored) == (0, 0)


@in_one_thread
async def test_an_object_stays_while_one_of_its_events_waits(journalled, held, monkeypatch):
    monkeypatch.setattr(upkeep, "_SWEPT", 1)  # the others take turns, again and again
    turns, clock = Turns(), Clock()
    timings = {"dead_seconds": 1e6, "sweep_seconds": 0.0, "clock": clock}
    async with journalled(recorder=turns, **timings) as one:
        first, other = event(), event()
        await one.outbox.intake.append_all([first, other], [None, None])
        await deliver(one.outbox, await claim(one.outbox, ask(1)))
        alone = await one.outbox.intake.append(event())
        kept, _ = held.groups()
        await turns.some(5)
        batch = await claim(one.outbox)
        seqs = [entry.seq for entry in batch.entries if entry.seq == alone.seq]
        await one.outbox.queue.settle(Settlement(batch.claim, delivered=seqs))
        await eventually(lambda: held.groups() == [kept])
        assert {*held.stored()} == {first.id, other.id}
        clock.ahead_seconds = QUICK.late_seconds
        await eventually(lambda: held.stored() == {other.id: False})


@in_one_thread
async def test_what_a_person_took_back_does_not_come_back(journalled, held):
    async with journalled() as one:
        kept, gone = event(), event()
        await one.outbox.intake.append_all([kept, gone], [None, None])
        assert await one.discard(gone.id) == [gone.id]
        await eventually(lambda: held.stored() == {kept.id: False})  # not only after an hour
    async with journalled() as two:
        assert await two.ids() == {kept.id}


@in_one_thread
async def test_what_a_person_took_back_does_not_come_back_from_its_object(journalled, held):
    async with journalled() as one:
        kept, gone = await append_all(one.outbox, 2)
        held.may_put.clear()  # the object is not written anew
        await one.discard(gone.id)
    held.may_put.set()
    async with journalled() as two:
        assert await two.ids() == {kept.id}


@in_one_thread
async def test_what_a_person_took_back_while_it_was_put_is_soon_gone_from_its_object(
    journalled, held
):
    async with journalled() as one:
        kept, gone = event(), event()
        held.may_put.clear()
        posting = asyncio.create_task(one.outbox.intake.append_all([kept, gone], [None, None]))
        await eventually(lambda: one.outbox.intake.find(gone.id))
        assert await one.discard(gone.id) == [gone.id]
        held.may_put.set()
        await posting
        await eventually(lambda: held.stored() == {kept.id: False})


@in_one_thread
async def test_what_a_person_took_back_and_a_late_put_brings_back_is_gone_when_none_can_land(
    journalled, held, monkeypatch
):
    async def put_late(line: HeldLine, name: str, data: bytes, **options: Any) -> bool:
        if "/0" in name and not late:
            late.append((name, data))
            raise StorageUnavailableError
        landed = await put(line, name, data, **options)
        if "/0" in name and removed and not clock.ahead_seconds:
            held.put(*late[0], is_new=False)
            clock.ahead_seconds = QUICK.late_seconds  # before the answer
        return landed

    put, late, removed, clock = HeldLine.put, [], [], Clock()
    async with journalled() as one:
        kept, gone = await append_all(one.outbox, 2)
    monkeypatch.setattr(HeldLine, "put", put_late)
    async with journalled(clock=clock) as two:
        await eventually(lambda: late and two.upkeep.state.missing == 0)
        removed.append(gone)
        await two.discard(gone.id)
        await eventually(lambda: clock.ahead_seconds)
        await eventually(lambda: held.stored() == {kept.id: False})


@pytest.mark.parametrize("accepts", [False, True])
@in_one_thread
async def test_a_removal_before_the_bucket_was_read_is_told_and_does_not_come_back(
    journalled, held, tmp_path, accepts
):
    folder = tmp_path / "kept"
    async with journalled(folder) as one:
        kept, gone = await append_all(one.outbox, 2)
    held.is_away = True
    async with journalled(folder, accepts=accepts) as two:
        if accepts:
            assert await two.discard(gone.id) == [gone.id]
        else:
            with pytest.raises(OutboxUnavailableError, match="does not know it yet"):
                await two.discard(gone.id)
        held.is_away = False
        await eventually(lambda: held.stored() == {kept.id: False})
    async with journalled() as three:
        assert await three.ids() == {kept.id}


@in_one_thread
async def test_an_older_file_gets_what_it_has_never_had(journalled, tmp_path):
    folder = tmp_path / "kept"
    async with journalled(folder) as one:
        early = await append_all(one.outbox, 2)
    copy = shutil.copytree(folder, tmp_path / "copy")
    async with journalled(folder) as two:
        late = await append_all(two.outbox, 2)
    async with journalled(copy) as three:
        assert await three.ids() == {each.id for each in [*early, *late]}
        assert three.upkeep.state.restored == 2


@in_one_thread
async def test_an_older_file_gets_the_rest_of_an_object_of_which_it_has_a_part(
    journalled, held, tmp_path
):
    folder, copy = tmp_path / "kept", tmp_path / "copy"
    async with journalled(folder, accepts=True, dead_seconds=60.0) as one:
        held.is_away = True
        sent = await append_all(one.outbox, 2)
        shutil.copytree(folder, copy)
        sent += await append_all(one.outbox, 2)
        held.is_away = False
        await eventually(lambda: one.upkeep.state.missing == 0)
        assert len(held.groups()) == 1
    async with journalled(copy, destination="two") as two:
        [words] = await eventually(lambda: two.upkeep.state.refused)
        assert "The journal has 2 events" in words
        [start] = [each for each in await two.upkeep.starts() if each.unknown]
        assert start.unknown == 2
        await two.upkeep.restore([start.id])
        assert await two.ids() == {each.id for each in sent}


@in_one_thread
async def test_while_the_bucket_is_away_posts_are_refused_and_what_was_stored_is_put_later(
    journalled, held
):
    key = IdempotencyKey.of("k", b"body", plain_digests)
    async with journalled() as one:
        await eventually(lambda: one.outbox.failure is None)
        first, second = event(), event()
        held.is_away = True
        with pytest.raises(OutboxUnavailableError, match="can't be written"):
            await one.outbox.intake.append(first, key=key)
        with pytest.raises(OutboxUnavailableError, match="can't be written"):
            await one.outbox.intake.append(second)  # known to be away: nothing is stored
        with pytest.raises(OutboxUnavailableError):
            await one.outbox.intake.append(event(), key=key)  # not there yet
        assert "can't be written" in one.outbox.failure
        held.is_away = False
        await eventually(lambda: one.outbox.failure is None)
        await eventually(lambda: set(held.stored()) == {first.id})
        again = await one.outbox.intake.append(event(), key=key)
        assert (again.event_id, again.replayed) == (first.id, True)
        assert await one.outbox.intake.find(second.id) is None


@in_one_thread
async def test_events_may_be_accepted_while_the_bucket_is_away(journalled, held):
    turns = Turns()
    async with journalled(accepts=True, dead_seconds=60.0, recorder=turns) as one:
        held.is_away = True
        sent = await append_all(one.outbox, 3)
        await eventually(lambda: turns.figures["journal_away"] == 1)
        one.upkeep._journal.pace = Pace(3.0, lambda: 0.0)  # three puts in all
        for _ in range(3):
            sent += await append_all(one.outbox, 1)
        assert (one.upkeep.state.state, one.upkeep.state.missing) == ("away", 6)
        assert one.outbox.failure is None
        held.is_away = False
        await eventually(lambda: one.upkeep.state.missing == 0)
        assert set(held.stored()) == {each.id for each in sent}
        assert one.upkeep.state.state == "ok"
        await eventually(lambda: turns.figures["journal_away"] == 0)
        async with asyncio.timeout(PATIENCE_SECONDS):  # those while it was away were no puts
            await one.outbox.intake.append(event())


@pytest.mark.parametrize("accepts", [False, True])
@in_one_thread
async def test_a_repeat_waits_until_its_event_is_in_the_bucket(journalled, held, accepts):
    key, first, turns = IdempotencyKey.of("k", b"body", plain_digests), event(), Turns()
    async with journalled(accepts=accepts, recorder=turns) as one:
        held.may_put.clear()
        posts = [asyncio.create_task(one.outbox.intake.append(first, key=key))]
        await eventually(lambda: one.outbox.intake.find(first.id))
        posts.append(asyncio.create_task(one.outbox.intake.append(event(), key=key)))
        await one.outbox.journalled.reserve(0)  # a commit after its own
        await turns.some(2)
        assert not any(post.done() for post in posts)
        held.may_put.set()
        assert {receipt.event_id for receipt in await asyncio.gather(*posts)} == {first.id}


@in_one_thread
async def test_a_start_without_the_bucket_serves_when_it_is_back(journalled, held):
    async with journalled() as one:
        [sent] = await append_all(one.outbox, 1)
    held.is_away = True
    async with journalled() as two:
        with pytest.raises(OutboxUnavailableError, match="can't be reached"):
            await two.outbox.intake.append(event())
        held.is_away = False
        await eventually(lambda: two.outbox.failure is None)
        assert await two.ids() == {sent.id}


@in_one_thread
async def test_a_bucket_that_stays_away_is_told_once(journalled, held):
    turns = Turns()
    held.is_away = True
    with capture_logs() as logs:
        async with journalled(recorder=turns):
            await turns.some(3)
    told = [one["event"] for one in logs if one["event"].startswith("journal_")]
    assert sorted(told) == ["journal_away", "journal_upkeep_failed"]


@in_one_thread
async def test_a_mark_that_can_not_be_read_keeps_the_outbox_from_serving_and_is_named(
    journalled, held
):
    async with journalled() as one:
        await append_all(one.outbox, 1)
    held.put(f"{LOST_START}/mark-1", b"another form", is_new=True)
    with capture_logs() as logs:
        async with journalled() as two:
            with pytest.raises(OutboxUnavailableError, match="not been compared"):
                await two.outbox.intake.append(event())
    [reason] = [one["reason"] for one in logs if one["event"] == "journal_upkeep_failed"]
    assert reason == f"The journal's {LOST_START}/mark-1 can't be read."
    async with journalled(accepts=True) as three:
        [new] = await append_all(three.outbox, 1)
        assert await three.ids() == {new.id}
        del held.objects[f"{LOST_START}/mark-1"]
        await eventually(three.ids, lambda ids: len(ids) == 2)


@in_one_thread
async def test_events_of_an_outbox_that_runs_are_left_alone_unless_told(journalled):
    async with journalled() as one, journalled() as two:
        await append_all(one.outbox, 2)
        [start] = [one_ for one_ in await two.upkeep.starts() if one_.unknown]
        assert (start.live, start.ours, start.unknown) == (True, False, 2)
        async with journalled(ask_seconds=3.0) as three:
            assert three.upkeep.state.restored == 0
            [words] = three.upkeep.state.refused
            assert "another outbox that runs" in words
            assert (await three.upkeep.restore([start.id])).pending == 2


@in_one_thread
async def test_an_outbox_shows_that_it_runs_while_it_has_much_to_put(journalled, monkeypatch):
    monkeypatch.setattr(upkeep, "_PUT_BYTES", 1)
    async with journalled() as lost:
        await append_all(lost.outbox, 30)
    async with journalled() as one:
        one.upkeep._journal.pace = Pace(1.0, now)
        [sent] = await append_all(one.outbox, 1)
        async with journalled(ask_seconds=3.0) as two:
            assert "another outbox that runs" in two.upkeep.state.refused[0]
            assert await two.outbox.intake.find(sent.id) is None


@in_one_thread
async def test_of_a_start_whose_disk_is_lost_nothing_stays_but_events(journalled, held):
    def an_hour_later() -> set[str]:
        clock.ahead_seconds += QUICK.late_seconds
        return held.kinds()

    clock, turns = Clock(), Turns()
    async with journalled(clock=clock, recorder=turns, sweep_seconds=1e6) as one:
        an_hour_later()
        await turns.some(3)
        [gone] = await append_all(one.outbox, 1)
        await one.discard(gone.id)
        await eventually(held.kinds, {"live", "mark", "/0"}.__eq__)
        journal = one.upkeep._journal
        journal.timings = replace(journal.timings, sweep_seconds=0.0)
        await eventually(held.kinds, {"live", "mark"}.__eq__)
        await turns.some(3)  # an earlier put may land for an hour
    held.put(f"{LOST_START}/live", b"", is_new=True)  # it was killed
    held.put(f"{LOST_START}/0000000000000009-1", b"", is_new=True)
    async with journalled(clock=clock) as two:
        assert held.kinds() >= {"mark", "/0"}
        assert two.upkeep.state.refused == ()
        await eventually(an_hour_later, {"live"}.__eq__)
    assert held.kinds() == set()


@in_one_thread
async def test_events_of_an_outbox_that_has_ended_since_come_back_later(journalled):
    clock = Clock()
    async with contextlib.AsyncExitStack() as running:
        one = await running.enter_async_context(journalled())
        await append_all(one.outbox, 2)
        async with journalled(ask_seconds=3.0, clock=clock) as two:
            assert (two.upkeep.state.restored, len(two.upkeep.state.refused)) == (0, 1)
            await running.aclose()
            clock.ahead_seconds = QUICK.late_seconds
            await eventually(lambda: two.upkeep.state.restored == 2)
            assert two.upkeep.state.refused == ()


@in_one_thread
async def test_events_for_another_inngest_are_left_alone_unless_told(journalled):
    async with journalled() as one:
        await append_all(one.outbox, 2)
    with capture_logs() as logs:
        async with journalled(destination="two") as two:
            [words] = two.upkeep.state.refused
    assert [one["log_level"] for one in logs if one["event"] == "journal_compared"] == ["warning"]
    async with journalled(destination="two") as two:
        assert "another Inngest, one" in words
        [start] = [each for each in await two.upkeep.starts() if each.unknown]
        for pending in (2, 0):
            assert (await two.upkeep.restore([start.id])).pending == pending
        assert two.upkeep.state.restored == 2
        starts = await eventually(
            two.upkeep.starts,
            lambda found: any(each.objects for each in found if each.id != start.id),
        )
        assert not any(each.unknown for each in starts)  # also of what it put itself


@in_one_thread
async def test_what_can_not_be_read_stays_and_is_told_whatever_else_comes_back(journalled, held):
    unread = f"{LOST_START}/0000000000000099-1"
    whole = encode_group(LOST_START, "one", [])
    for damaged in (whole[:-1], whole.replace(b"one", b"\xffne"), b"\x94\x02" + whole[2:]):
        for name in (unread, f"{unread}.copy"):  # the second is no part of a journal
            held.put(name, damaged, is_new=False)
        async with journalled() as one:
            assert "a form that can't be read" in one.upkeep.state.refused[0]
    async with journalled() as one:
        for _ in range(17):  # more objects than are read at a time
            await one.outbox.intake.append(event())
        old = {name for name in held.groups() if not name.startswith(unread)}
    async with journalled() as two:
        assert two.upkeep.state.restored == 17
        [words] = two.upkeep.state.refused
        assert f"1 events under {LOST_START}" in words
        await eventually(lambda: old.isdisjoint(held.groups()))
        assert unread in held.groups()


@pytest.mark.parametrize("kind", ["S3", "memory"])
async def test_a_bucket_has_what_was_put_once_and_tells_what_is_missing(
    kind, bucket_name, s3_environment
):
    s3_environment.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "2")  # of one answer
    async with Bucket(bucket_name, REGION) as opened:
        other = JournalBucket(opened, "another")
        await other.put("a", b"", seconds=PATIENCE_SECONDS)
        memory = BucketLine(MemoryBucket(random.Random(1)))
        one = JournalBucket(opened, "an") if kind == "S3" else memory
        for name in "abcde":
            assert await one.put(name, name.encode(), seconds=PATIENCE_SECONDS, is_new=True)
        assert not await one.put("a", b"new", seconds=PATIENCE_SECONDS, is_new=True)
        assert await one.put("b", b"newer", seconds=PATIENCE_SECONDS)
        assert [await one.get(name) for name in "abz"] == [b"a", b"newer", None]
        assert [await one.exists(name) for name in "az"] == [True, False]
        await one.delete(["c", "z"])
        before_ms = wall_now_ms() - 60_000
        found = [each async for each in one.listed()]
        assert [each[:2] for each in found] == [("a", 1), ("b", 5), ("d", 1), ("e", 1)]
        assert all(before_ms < each.modified_ms < before_ms + 120_000 for each in found)


class Answering(BucketLine):
    """A bucket that fails so often by `fault`."""

    def __init__(self, fault: Exception | int | None = None, times: float = math.inf) -> None:
        super().__init__(MemoryBucket(random.Random(1)))
        self.fault, self.times, self.asked = fault, times, 0

    async def put(self, *given: Any, **options: Any) -> bool:
        self.asked += 1
        if isinstance(self.fault, Exception):
            raise self.fault
        if self.fault and self.asked <= self.times:
            answer = {"ResponseMetadata": {"HTTPStatusCode": self.fault}}
            raise StorageUnavailableError("no") from ClientError(answer, "PutObject")
        return await super().put(*given, **options)


def alone(line: BucketLine, *, accepts: bool = False) -> S3Journal:
    """A journal without a file, which has been compared."""
    timings = JournalTimings(clock=now)
    made = S3Journal(line, "one", Turns(), accepts=accepts, timings=timings)  # type: ignore[arg-type]
    made.id, made.is_compared = LOST_START, True
    return made


@pytest.mark.parametrize(
    ("status", "tries"), [(400, 1), (403, 1), (404, 1), (408, 3), (409, 3), (429, 3), (503, 3)]
)
@in_virtual_time
async def test_a_put_that_the_bucket_did_not_decide_is_tried_again(status, tries):
    made = alone(line := Answering(status, times=2))
    with contextlib.suppress(StorageUnavailableError):
        await made.try_put("a", b"a")
    assert (line.asked, made.recorder.figures["journal_put_faults"]) == (tries, min(tries, 2))
    late = made.late("a")  # an undecided one may land until then
    assert (late > 3600, late <= now() + 3600, made.late("a")) == (tries > 1, True, 0.0)


@in_virtual_time
async def test_a_group_is_there_when_an_earlier_try_has_put_the_same():
    made = alone(Answering())
    for data in (b"a", b"a"):
        await made.try_put("a", data, is_new=True)
    with pytest.raises(StorageUnavailableError, match="Another object has the name"):
        await made.try_put("a", b"b", is_new=True)
    await made.try_put("a", b"b")


UNREAD, AWAY = "has not been compared", "can't be written: S3 is gone"


@pytest.mark.parametrize(
    ("id_", "is_compared", "away", "refusing", "accepting"),
    [
        ("", False, None, UNREAD, UNREAD),
        ("", False, "S3 is gone", UNREAD, UNREAD),
        (LOST_START, False, None, UNREAD, 0.0),
        (LOST_START, False, "S3 is gone", AWAY, 0.0),
        (LOST_START, True, None, 0.0, 0.0),
        (LOST_START, True, "S3 is gone", AWAY, 0.0),
    ],
)
@in_virtual_time
async def test_a_group_may_be_put_once_the_bucket_was_read(
    id_, is_compared, away, refusing, accepting
):
    for accepts, expected in ((False, refusing), (True, accepting)):
        made = alone(Answering(), accepts=accepts)
        made.id, made.is_compared, made.away = id_, is_compared, away
        if isinstance(expected, str):
            with pytest.raises(OutboxUnavailableError, match=expected):
                made.wait_seconds()
            continue
        assert made.wait_seconds() == expected
        for _ in range(20):
            made.pace.take()
        assert made.wait_seconds() == (0.0 if away else 0.05)
        made.under_way = dict.fromkeys(((1, 1), (2, 2)), asyncio.Future())
        assert made.wait_seconds() == (0.0 if away else 1.0)


CAN_NOT, CLOSED = "can't be written: no", "The journal is closed"
ODD = "A fault of the journal: KeyError"


@pytest.mark.parametrize("accepts", [False, True])
@pytest.mark.parametrize(
    ("bucket_is", "faults", "is_there", "may_land", "refusing", "accepting"),
    [
        ("well", (), True, False, "", ""),
        ("slow", (503, 1), True, True, "", ""),
        ("back", (503, 1), True, True, "", ""),
        ("lost", (503,), False, True, CAN_NOT, ""),
        ("refusing", (403,), False, False, CAN_NOT, ""),
        pytest.param("odd", (KeyError("b"),), False, False, ODD, ODD, marks=pytest.mark.faulty),
        ("away", (), False, False, "", ""),
        ("ended", (), False, False, CLOSED, CLOSED),
        ("ends", (), False, False, CLOSED, CLOSED),
    ],
)
@in_virtual_time
async def test_a_group_is_done_when_it_is_there_or_may_be_put_later(
    bucket_is, faults, is_there, may_land, refusing, accepting, *, accepts
):
    if bucket_is == "away" and not accepts:
        return  # no group is begun
    made = alone(line := Answering(*faults), accepts=accepts)
    if bucket_is == "ended":
        await made.end()
    made.away = "S3 is gone" if bucket_is == "away" else None
    with capture_logs() as logs, contextlib.ExitStack() as raised:
        put = made.put([JournalRow(7, "e-7", "a/b", "o", "u-1", 0, b"{}")], [])
        for _ in range(2):
            await asyncio.sleep(0)  # its request has begun
        if bucket_is == "ends":
            await made.end()
        if bucket_is == "back":
            made.went_away(StorageUnavailableError())  # for another put
        if words := (accepting if accepts else refusing):
            raised.enter_context(pytest.raises(OutboxUnavailableError, match=words))
        await put.done
    stored, missing = made.contents.covering(7), made.contents.missing.get((7, 7))
    assert (stored is not None) is is_there
    assert (missing is None) is (is_there or bucket_is == "ended")
    assert ((stored.uncertain_until if stored else missing or 0.0) > now()) is may_land
    assert (line.asked > 0) is (bucket_is not in ("away", "ended"))
    told = {one["event"] for one in logs}
    assert ("journal_failed" in told, "journal_back" in told) == (
        bucket_is == "odd",
        bucket_is == "back",
    )
    assert ("journal_put_seconds" in made.recorder.figures) is is_there
    assert ((7, 7) in made.under_way) is (bucket_is != "ended")
    put.committed()
    assert not made.under_way


@pytest.mark.parametrize("seconds", [None, 0.001, 1.0])
@in_virtual_time
async def test_a_group_whose_commit_failed_is_void_where_it_may_have_been_sent(seconds):
    made = alone(line := Answering())
    put = made.put([JournalRow(7, "e-7", "a/b", "o", "u-1", 0, b"{}")], [])
    if seconds is not None:
        await asyncio.sleep(seconds)
    put.void()
    await asyncio.sleep(1)
    assert put.done.cancelled() is (seconds != 1.0)  # it was there by then
    assert (made.under_way, made.contents.missing, len(made.contents)) == ({}, {}, 0)
    void = [put.name] if seconds else []
    assert [name for name, (data, _) in line._bucket.objects.items() if not data] == void
    assert [(name, at > 3600) for name, at in made.garbage] == [(name, True) for name in void]


@pytest.mark.parametrize("is_compared", [False, True])
@pytest.mark.parametrize("place", ["there", "under way", "missing", "nowhere"])
@in_virtual_time
async def test_a_removal_is_marked_where_the_bucket_has_the_event_or_may_get_it(
    place, *, is_compared
):
    made, stored = alone(line := Answering()), Stored("a", (7, 7), 1, 0.0)
    made.is_compared = is_compared
    if place == "there":
        made.contents.add(stored)
    elif place == "under way":
        made.under_way[7, 7] = asyncio.Future()
    elif place == "missing":
        made.contents.missing[7, 7] = 0.0
    await made.mark([(7, "e-7")])
    is_coming = place in ("under way", "missing")
    assert (stored.is_marked, made.contents.marked == {7}) == (place == "there", is_coming)
    assert len(made.marks) == (place != "nowhere" or not is_compared)
    assert line._bucket.has("e-7", marks=True) is bool(made.marks)
    made.contents.add(stored)
    assert (stored.is_marked, made.contents.marked) == (place != "nowhere", set())


@in_virtual_time
async def test_each_removal_that_was_not_marked_is_marked_later():
    made = alone(line := Answering(403, times=2), accepts=True)
    made.is_compared = False
    for seq in (7, 8):
        await made.mark([(seq, f"e-{seq}")])
    for left in (1, 0):
        await made.put_mark(*made.unmarked[0])
        assert len(made.unmarked) == left
    assert [line._bucket.has(one, marks=True) for one in ("e-7", "e-8")] == [True, True]


async def test_a_put_has_its_time_and_an_object_that_s3_keeps_or_does_not_show_is_told():
    class Keeping:
        name = "b"

        @contextlib.asynccontextmanager
        async def client_for(self, seconds: float) -> AsyncIterator[Any]:
            self.seconds = seconds
            with s3_errors():
                yield self

        async def put_object(self, **_: Any) -> None: ...

        async def head_object(self, **_: Any) -> None:
            answer = {"ResponseMetadata": {"HTTPStatusCode": 403}}
            raise ClientError(answer, "HeadObject")

        async def delete_objects(self, **_: Any) -> dict[str, Any]:
            return {"Errors": [{"Key": "a", "Code": "AccessDenied"}]}

    keeping = Keeping()
    one = JournalBucket(keeping, "")
    assert one.address == "s3://b"
    assert await one.put("a", b"a", seconds=1.5)
    assert keeping.seconds == 1.5
    with pytest.raises(StorageUnavailableError, match="AccessDenied"):
        await one.delete(["a", "b"])
    with pytest.raises(StorageUnavailableError, match="credentials"):
        await one.exists("a")


@pytest.mark.parametrize(
    ("kept", "ranges"),
    [
        ([], []),
        ([1, 2, 9], [(1, 2), (9, 9)]),
        ([4, 5, 20, 24, 25], []),
        ([1, 2, 3, 4, 6, 7], [(1, 3), (6, 7)]),
        ([19, 21, 26, 27], [(19, 19), (26, 27)]),
        ([*range(100, 700)], [(100, 599), (600, 699)]),
    ],
)
def test_rows_in_no_object_get_objects_beside_the_others(kept, ranges):
    contents = Contents()
    contents.add(Stored("a", (4, 5), 2, 0.0))
    contents.missing[20, 25] = 0.0
    assert [*contents.uncovered(kept)] == ranges


@in_virtual_time
async def test_missing_ranges_that_follow_each_other_share_an_object_of_500_rows():
    made = alone(Answering())
    for first, second, is_joined in (
        ((1, 2), (3, 4), True),
        ((1, 2), (4, 5), False),
        ((1, 400), (401, 500), True),
        ((1, 400), (401, 501), False),
    ):
        made.contents.missing = dict.fromkeys([second, first], 0.0)
        found = Upkeep(made, None)._missing()  # type: ignore[arg-type]
        assert found == ([first, second] if is_joined else [first])


@in_virtual_time
async def test_posts_that_use_the_whole_pace_leave_the_upkeep_its_turns():
    pace = Pace(20.0, now)

    async def post():
        while True:
            await asyncio.sleep(pace.wait_seconds())
            pace.take()

    posting = asyncio.create_task(post())
    async with asyncio.timeout(PATIENCE_SECONDS):
        for _ in range(20):
            await pace.in_peace()
    posting.cancel()


def test_a_journal_is_of_sqlite_only():
    with pytest.raises(ConfigurationError, match="synchronous_standby_names"):
        Settings.load({"OUTBOX_URL": "postgresql://h/d", "OUTBOX_JOURNAL": "s3://bucket"})
    with pytest.raises(ConfigurationError, match="OUTBOX_JOURNAL: write s3://bucket/prefix"):
        Settings.load({"OUTBOX_JOURNAL": "bucket"})


class _With:
    """A module in which some names are replaced."""

    def __init__(self, module, **names):
        self.__dict__.update(vars(module), **names)


def variables(path: Path, bucket_name: str, **more: str) -> dict[str, str]:
    return {
        "OUTBOX_URL": f"sqlite:///{path}",
        "OUTBOX_JOURNAL": f"s3://{bucket_name}/a",
        "AWS_S3_REGION": REGION,
        "INNGEST_DEV": "http://127.0.0.1:9",
        **more,
    }


def opening(*given: Any, **more: str) -> Any:
    return open_outbox(Settings.load(variables(*given, **more)))


async def test_the_configuration_says_whether_events_are_accepted_without_the_bucket(
    bucket_name, tmp_path, s3_environment
):
    s3_environment.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
    made = []

    def make(*given):
        made.append(given)
        return Bucket(*given)

    s3_environment.setattr(journal_parts, "Bucket", make)
    async with opening(tmp_path / "one.db", bucket_name, OUTBOX_JOURNAL_AWAY="accept") as outbox:
        await outbox.intake.append(event())
    assert made == [(bucket_name, REGION)]
    async with opening(tmp_path / "two.db", bucket_name) as outbox:
        with pytest.raises(OutboxUnavailableError, match="can't be reached"):
            await outbox.intake.append(event())


async def test_the_configuration_says_how_many_objects_are_put_in_a_second(
    bucket_name, tmp_path, s3_environment, monkeypatch
):
    """They come within one second of the journal's clock; by default 20 would."""
    at_once = replace(PATIENT, clock=lambda: 1000.0)
    monkeypatch.setattr(journal, "JournalTimings", lambda: at_once)
    rate = {"OUTBOX_JOURNAL_PUTS_PER_SECOND": "40"}
    async with opening(tmp_path / "outbox.db", bucket_name, **rate) as outbox:
        async with asyncio.timeout(PATIENCE_SECONDS):
            for _ in range(30):
                await outbox.intake.append(event())


async def test_fake_inngests_at_two_addresses_are_one(bucket_name, tmp_path, s3_environment):
    found = []
    for port in (8288, 8289):
        given = variables(tmp_path / f"{port}.db", bucket_name)
        del given["INNGEST_DEV"]
        settings = Settings.load(given).with_fake_inngest(f"http://127.0.0.1:{port}")
        async with open_outbox(settings) as outbox:
            if not found:
                await append_all(outbox, 1)
            found.append([row.id for row in await outbox.inspector.rows(Filter())])
    assert found[0] == found[1]


async def test_people_see_the_journal_and_bring_back_what_was_left_alone(
    bucket_name, tmp_path, s3_environment
):
    async with opening(tmp_path / "another.db", bucket_name, INNGEST_ENV="branch") as another:
        await append_all(another, 2)
    path, foreign = tmp_path / "outbox.db", "another Inngest, http://127.0.0.1:9 branch"
    given = variables(
        path,
        bucket_name,
        AWS_S3_BUCKET=bucket_name,
        INNGEST_DEV=f"http://127.0.0.1:{free_port()}",
        OPERATOR_EMAILS="op@example.com",
    )
    for name, value in given.items():
        s3_environment.setenv(name, value)
    async with service_here(given) as service:
        operator = Poster(service.url)
        async with operator.http:
            await operator.sign_in("op")
            status, answer = await operator.ask("GET", "/readyz")
            journal = answer["detail"]["journal"]
            assert (status, journal["state"], journal["missing"]) == (200, "ok", 0)
            async with operator.http.get(f"{service.url}/outbox") as page:
                assert foreign in await page.text()
        assert foreign in (await outbox_json(path, "stats"))["journal"]["refused"][0]
        starts = (await outbox_json(path, "journal"))["starts"]
        [start] = [each for each in starts if each["unknown"]]
        one = "journal", "--restore", start["id"]
        code, out, _ = await outbox_command(path, *one)
        held = f"{counted(start['objects'], 'object')}, {start['bytes']:,} bytes"
        assert (code, *out.splitlines()) == (
            0,
            f"{start['id']}  another file's: {held}; 2 events that this file has never had",
            "Nothing was changed: give --yes to do it.",
        )
        assert ", runs or was killed: 0 objects, " in (await outbox_command(path, "journal"))[1]
        assert (await outbox_command(path, *one, "--restore", "0" * 12))[:2] == (1, out)
        assert (await outbox_json(path, "stats"))["pending"] == 0
        code, out, _ = await outbox_command(path, *one, "--yes")
        back = "Brought back 2 pending and 0 dead events; 0 are older than Inngest remembers"
        assert (code, back in out) == (0, True)
        stats = await eventually(
            lambda: outbox_json(path, "stats"), lambda stats: stats["journal"]["restored"]
        )
        assert (stats["pending"] + stats["delivering"], stats["journal"]["restored"]) == (2, 2)
        # Exit code 1 once nothing is left of that start.
        assert "Brought back 0 pending" in (await outbox_command(path, *one, "--yes"))[1]
        _, out, _ = await outbox_command(path, "stats")
        assert f"\njournal s3://{bucket_name}/a: ok, " in out
        assert "\n2 events came back from it, 0 dead; 0 may run twice\n" in out
    assert "this file's" in (await outbox_command(path, "journal"))[1]
    code, out, err = await outbox_command(path, "journal", "--restore", "0" * 12)
    assert (code, out.splitlines()[0]) == (1, "There is nothing of that in the journal."), err
    assert (await outbox_command(path, "journal", "--restore", "0" * 12, "--json"))[:2] == (
        1,
        '{\n  "starts": [],\n  "restored": null\n}\n',
    )
    lost = path.with_name("lost.db")  # OUTBOX_URL still names the other
    code, out, _ = await outbox_command(lost, "journal")
    assert (code, "this file's" in out, "another file's" in out) == (0, False, True)


async def test_machines_need_no_bucket_but_the_journals(bucket_name, tmp_path, s3_environment):
    keys = {"OUTBOX_EVENT_KEYS": "shop:0123456789abcdef"}
    given = variables(tmp_path / "outbox.db", bucket_name, **keys)
    async with service_here(given) as service, ClientSession() as http:
        answer = await (await http.get(f"{service.url}/readyz")).json()
    assert (answer["status"], answer["faults"]) == ("ready", [])


async def test_a_command_without_a_service_marks_what_it_removes(
    bucket_name, tmp_path, s3_environment
):
    path = tmp_path / "outbox.db"
    async with opening(path, bucket_name) as one:
        kept, gone = await append_all(one, 2)
    for name, value in variables(path, bucket_name).items():
        s3_environment.setenv(name, value)
    copy = tmp_path / "copy.db"
    shutil.copy(path, copy)
    s3_environment.chdir(tmp_path)  # the outbox is the same by another address
    for file, event_id in ((Path(path.name), gone.id), (copy, kept.id)):
        code, _, err = await outbox_command(file, "discard", event_id, "--yes")
        assert code == 0, err
    async with opening(tmp_path / "new.db", bucket_name) as two:
        assert [row.id for row in await two.inspector.rows(Filter())] == [kept.id]
