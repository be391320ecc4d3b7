"""The journal over a real S3 API: what is there before an answer, what a lost disk brings back."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
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
from urllib.parse import urlsplit

import msgspec
import pytest
from aiohttp import ClientSession
from botocore.exceptions import ClientError
from structlog.testing import capture_logs

from service.bootstrap import journal as journal_parts
from service.bootstrap.stores import open_outbox
from service.config.settings import Settings
from service.documents.boto import s3_errors
from service.documents.bucket import Bucket
from service.errors import (
    ConfigurationError,
    IdempotencyKeyReusedError,
    OutboxUnavailableError,
    StorageUnavailableError,
)
from service.journal import bucket, comparison, journal, upkeep
from service.journal.bucket import JournalBucket
from service.journal.contents import Contents, Stored
from service.journal.journal import JournalTimings, Pace, S3Journal
from service.journal.objects import decode_group
from service.journal.upkeep import Upkeep
from service.observe.recorder import NullRecorder, Recorder
from service.outbox.clock import wall_now_ms
from service.outbox.keys import IdempotencyKey, plain_digests
from service.outbox.model import Dead, Filter, Named, Settlement, State
from service.outbox.sqlite.file import connection
from service.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from tests.support.free_port import free_port
from tests.support.journal.bucket import BucketLine, MemoryBucket
from tests.support.outbox_command import outbox_command, outbox_json
from tests.support.poster import Poster
from tests.support.service_here import service_here
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
from tests.support.tcp_proxy import TcpProxy
from tests.support.virtual_time import in_virtual_time, now

REGION = "eu-west-1"
# A machine that stalls is no bucket that is away.
PATIENT = JournalTimings(put_seconds=PATIENCE_SECONDS, patience_seconds=PATIENCE_SECONDS)
AWAY_SOON = {"put_seconds": 0.2, "patience_seconds": 0.3}
QUICK = replace(
    PATIENT,
    step_seconds=0.02,
    live_seconds=0.1,
    ask_seconds=0.6,
    sweep_seconds=0.05,
    dead_seconds=0.1,
)
_folders = itertools.count()


@dataclass
class Opened:
    """An outbox with a journal."""

    outbox: SqliteOutbox
    upkeep: Upkeep


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


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    """A command waits for a busy machine, too."""
    monkeypatch.setattr(journal, "JournalTimings", lambda: PATIENT)
    monkeypatch.setattr(bucket, "_ASK_SECONDS", PATIENCE_SECONDS)


@pytest.fixture
def journalled(bucket_name, tmp_path):
    """Open an outbox with a journal; in a new folder where none is given."""

    @contextlib.asynccontextmanager
    async def opened(
        folder: Path | None = None,
        *,
        accepts: bool = False,
        destination: str = "one",
        prefix: str = "a/b",
        recorder: Recorder | None = None,
        **timings: Any,
    ) -> AsyncIterator[Opened]:
        folder = folder or tmp_path / f"disk-{next(_folders)}"
        folder.mkdir(exist_ok=True)
        async with Bucket(bucket_name, REGION) as opened_bucket:
            made = S3Journal(
                JournalBucket(opened_bucket, prefix),
                destination,
                recorder or NullRecorder(),
                accepts=accepts,
                timings=replace(QUICK, **timings),
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


@pytest.fixture
async def line(s3, s3_environment) -> AsyncIterator[TcpProxy]:
    """The way to the bucket."""
    async with TcpProxy(urlsplit(s3.meta.endpoint_url).port) as proxy:
        s3_environment.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{proxy.port}")
        yield proxy


@pytest.fixture
def may_put(monkeypatch) -> asyncio.Event:
    """Groups are not put while it is clear."""

    async def held_up(bucket: JournalBucket, name: str, *given: Any, **options: Any) -> bool:
        if "/0" in name:
            await may_put.wait()
        return await put(bucket, name, *given, **options)

    put, may_put = JournalBucket.put, asyncio.Event()
    may_put.set()
    monkeypatch.setattr(JournalBucket, "put", held_up)
    return may_put


@pytest.fixture
def names(s3, bucket_name):
    """The names of the groups in the bucket."""

    def listed() -> list[str]:
        found = s3.list_objects_v2(Bucket=bucket_name).get("Contents", [])
        keys = [one["Key"] for one in found if one["Size"]]
        return [key for key in keys if "/live" not in key and "/mark-" not in key]

    return listed


@pytest.fixture
def voids(s3, bucket_name):
    """The names of the objects without content."""

    def listed() -> list[str]:
        found = s3.list_objects_v2(Bucket=bucket_name).get("Contents", [])
        return [one["Key"] for one in found if not one["Size"]]

    return listed


@pytest.fixture
def stored(s3, bucket_name, names):
    """The events in the bucket: their ids, with `dead` where they are told to be."""

    def read() -> dict[str, bool]:
        bodies = [s3.get_object(Bucket=bucket_name, Key=key)["Body"].read() for key in names()]
        return {row.id: row.dead for body in bodies for row in decode_group(body).rows}

    return read


async def test_an_event_is_in_the_bucket_before_it_is_answered(journalled, stored, names):
    async with journalled() as one:
        sent = event()
        receipt = await one.outbox.intake.append(sent)
        assert stored() == {sent.id: False}
        [name] = names()
        prefix = receipt.ids.prefix.hex()
        assert name == f"a/b/{prefix}/{receipt.seq:016d}-1"


async def test_a_lost_disk_brings_every_event_back_under_its_ids(journalled):
    async with journalled() as one:
        long_ago_ms = wall_now_ms() - 25 * 3600 * 1000
        old = msgspec.structs.replace(event(), accepted_at_ms=long_ago_ms)
        receipts = [await one.outbox.intake.append(each) for each in (event(), old, event())]
        key = IdempotencyKey.of("k", b"body", plain_digests)
        keyed = await one.outbox.intake.append(event(), key=key)
    async with journalled() as two:
        rows = await two.outbox.inspector.rows(Filter())
        assert {row.id for row in rows} == {one.event_id for one in [*receipts, keyed]}
        assert {row.state for row in rows} == {State.PENDING}
        ids = two.outbox.confirmations.inngest_ids
        entries = (await claim(two.outbox)).entries
        again = {one.event_id: ids.ulid(one.seq, one.accepted_at_ms, one.meta) for one in entries}
        assert again == {one.event_id: one.inngest_id for one in [*receipts, keyed]}
        replayed = await two.outbox.intake.append(event(), key=key)
        assert (replayed.event_id, replayed.replayed) == (keyed.event_id, True)
        assert replayed.inngest_id == keyed.inngest_id
        other = IdempotencyKey.of("k", b"another", plain_digests)
        with pytest.raises(IdempotencyKeyReusedError):
            await two.outbox.intake.append(event(), key=other)
        assert (two.upkeep.state.restored, two.upkeep.state.may_run_twice) == (4, 1)


async def test_what_came_back_is_safe_from_a_second_loss(journalled, stored, names, monkeypatch):
    turns = Turns()
    async with journalled() as one:
        sent = await append_all(one.outbox, 5)
    old = names()
    monkeypatch.setattr(upkeep, "_PUT_BYTES", 300)  # they need three objects
    async with journalled(dead_seconds=60.0, recorder=turns) as two:
        await eventually(lambda: set(names()).isdisjoint(old))
        assert set(stored()) == {each.id for each in sent}
        assert len(names()) == 3
        assert two.upkeep.state.missing == 0
        assert turns.figures["journal_restored"] == 5
    async with journalled() as three:
        assert three.upkeep.state.restored == 5


async def test_a_dead_event_comes_back_dead_and_its_delivered_neighbours_do_not(journalled, stored):
    async with journalled(late_seconds=0.2) as one:
        sent = await append_all(one.outbox, 3)
        batch = await claim(one.outbox)
        first, *others = [entry.seq for entry in batch.entries]
        dead = Dead(first, 1, "rejected", "in Inngest's words")
        await one.outbox.queue.settle(Settlement(batch.claim, delivered=others, dead=[dead]))
        await eventually(lambda: stored() == {sent[0].id: True})
        again = Named((sent[1].id,), State.DELIVERED)
        assert await one.outbox.repairs.replay(again, actor="ada") == [sent[1].id]
        await eventually(lambda: stored() == {sent[0].id: True, sent[1].id: False})
        await deliver(one.outbox, await claim(one.outbox))
        await eventually(lambda: stored() == {sent[0].id: True})
    async with journalled() as two:
        [row] = await two.outbox.inspector.rows(Filter())
        assert (row.id, row.state, row.reason) == (sent[0].id, State.DEAD, "rejected")
        assert row.detail == "in Inngest's words"
        assert two.upkeep.state.restored_dead == 1


async def test_the_bucket_knows_what_became_of_an_event_alone_in_its_object(
    journalled, stored, names
):
    async with journalled() as one:
        [sent] = await append_all(one.outbox, 1)
        batch = await claim(one.outbox)
        dead = [Dead(batch.entries[0].seq, 1, "rejected", "")]
        await one.outbox.queue.settle(Settlement(batch.claim, dead=dead))
        await eventually(lambda: stored() == {sent.id: True})
        await one.outbox.repairs.replay(Named((sent.id,)), actor="ada")
        await deliver(one.outbox, await claim(one.outbox))
        await eventually(lambda: not names())
        again = Named((sent.id,), State.DELIVERED)
        assert await one.outbox.repairs.replay(again, actor="ada") == [sent.id]
        await eventually(lambda: stored() == {sent.id: False})


async def test_an_object_goes_when_all_its_events_are_delivered(
    journalled, names, s3, bucket_name, tmp_path, monkeypatch
):
    monkeypatch.setattr(comparison, "_KEPT_IDS", 2)
    folder = tmp_path / "kept"
    async with journalled(folder) as one:
        await append_all(one.outbox, 4)
        [name] = names()
        late = s3.get_object(Bucket=bucket_name, Key=name)["Body"].read()
        await deliver(one.outbox, await claim(one.outbox))
        await eventually(lambda: not names())
        await one.outbox.repairs.purge(older_than_seconds=-1, actor=None)
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket_name)  # not the start's own, too
    async with journalled(folder):
        pass
    s3.put_object(Bucket=bucket_name, Key=name, Body=late)  # a try of its put lands
    async with journalled(folder) as three:
        assert three.upkeep.state.restored == 0
        await eventually(lambda: not names())
    for _ in range(2):
        async with journalled(folder) as five:
            assert len(await five.outbox.journalled.begin()) <= 3  # not each start for ever


async def test_an_object_that_is_there_before_its_commit_is_not_taken_for_a_settled_one(
    journalled, names, stored, monkeypatch
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
        await eventually(names)
        swept = turns.made + 2
        await eventually(lambda: turns.made >= swept)
        may_commit.set()
        assert set(stored()) == {each.id for each in await sending}


async def test_a_group_whose_commit_failed_does_not_come_back(
    journalled, names, voids, line, may_put, monkeypatch
):
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
        assert len(names()) == 2
        may_put.clear()  # a put that is under way may land, too
        fails.append(True)
        with pytest.raises(OutboxUnavailableError):
            await one.outbox.intake.append(event())
        fails.clear()
        may_put.set()
        await eventually(lambda: len(voids()) == 2)
    async with asyncio.timeout(PATIENCE_SECONDS), journalled() as two:
        rows = await two.outbox.inspector.rows(Filter())
        assert {row.id for row in rows} == {before.id, later.event_id}
        line.truncate_answers(0)  # the stop does not wait until a group is void
        fails.append(True)
        with pytest.raises(OutboxUnavailableError):
            await two.outbox.intake.append(event())


async def test_an_object_stays_while_one_of_its_events_waits(
    journalled, names, stored, monkeypatch
):
    monkeypatch.setattr(upkeep, "_SWEPT", 1)  # the others take turns, again and again
    turns = Turns()
    async with journalled(dead_seconds=60.0, sweep_seconds=0.0, recorder=turns) as one:
        first, other = event(), event()
        await one.outbox.intake.append_all([first, other], [None, None])
        await deliver(one.outbox, await claim(one.outbox, ask(1)))
        alone = await one.outbox.intake.append(event())
        kept, _ = names()
        swept = turns.made + 5
        await eventually(lambda: turns.made >= swept)
        batch = await claim(one.outbox)
        seqs = [entry.seq for entry in batch.entries if entry.seq == alone.seq]
        await one.outbox.queue.settle(Settlement(batch.claim, delivered=seqs))
        await eventually(lambda: names() == [kept])
        assert other.id in stored()


async def test_what_a_person_took_back_does_not_come_back(journalled, stored):
    async with journalled() as one:
        kept, gone = event(), event()
        await one.outbox.intake.append_all([kept, gone], [None, None])
        assert await one.outbox.repairs.discard(Named(ids=(gone.id,)), actor="ada") == [gone.id]
        await eventually(lambda: stored() == {kept.id: False})  # not only after an hour
    async with journalled() as two:
        assert [row.id for row in await two.outbox.inspector.rows(Filter())] == [kept.id]


async def test_what_a_person_took_back_does_not_come_back_from_its_object(journalled, may_put):
    async with journalled() as one:
        kept, gone = await append_all(one.outbox, 2)
        may_put.clear()  # the object is not written anew
        await one.outbox.repairs.discard(Named(ids=(gone.id,)), actor="ada")
    may_put.set()
    async with journalled() as two:
        assert [row.id for row in await two.outbox.inspector.rows(Filter())] == [kept.id]


async def test_what_a_person_took_back_while_it_was_put_is_soon_gone_from_its_object(
    journalled, may_put, stored
):
    async with journalled() as one:
        kept, gone = event(), event()
        may_put.clear()
        posting = asyncio.create_task(one.outbox.intake.append_all([kept, gone], [None, None]))
        await eventually(lambda: one.outbox.intake.find(gone.id))
        assert await one.outbox.repairs.discard(Named(ids=(gone.id,)), actor="ada") == [gone.id]
        may_put.set()
        await posting
        await eventually(lambda: stored() == {kept.id: False})


async def test_what_a_person_took_back_and_a_late_put_brings_back_is_gone_when_none_can_land(
    journalled, s3, bucket_name, stored, monkeypatch
):
    async def put_late(bucket: JournalBucket, name: str, data: bytes, **options: Any) -> bool:
        if "/0" in name and not late:
            late.append((f"a/b/{name}", data))
            raise StorageUnavailableError
        landed = await put(bucket, name, data, **options)
        if "/0" in name and removed and not ahead_seconds[0]:
            s3.put_object(Bucket=bucket_name, Key=late[0][0], Body=late[0][1])
            ahead_seconds[0] = QUICK.late_seconds  # before the answer
        return landed

    put, late, removed, ahead_seconds = JournalBucket.put, [], [], [0.0]
    async with journalled() as one:
        kept, gone = await append_all(one.outbox, 2)
    monkeypatch.setattr(JournalBucket, "put", put_late)
    async with journalled(clock=lambda: time.monotonic() + ahead_seconds[0]) as two:
        await eventually(lambda: late and two.upkeep.state.missing == 0)
        removed.append(gone)
        await two.outbox.repairs.discard(Named(ids=(gone.id,)), actor="ada")
        await eventually(lambda: ahead_seconds[0])
        await eventually(lambda: stored() == {kept.id: False})


@pytest.mark.parametrize("accepts", [False, True])
async def test_a_removal_before_the_bucket_was_read_is_told_and_does_not_come_back(
    journalled, line, stored, tmp_path, accepts
):
    folder = tmp_path / "kept"
    async with journalled(folder) as one:
        kept, gone = await append_all(one.outbox, 2)
    line.truncate_answers(0)
    async with journalled(folder, accepts=accepts, **AWAY_SOON) as two:
        removing = two.outbox.repairs.discard(Named(ids=(gone.id,)), actor="ada")
        if accepts:
            assert await removing == [gone.id]
        else:
            with pytest.raises(OutboxUnavailableError, match="does not know it yet"):
                await removing
        line.heal()
        two.upkeep._journal.timings = QUICK
        await eventually(lambda: stored() == {kept.id: False})
    async with journalled() as three:
        assert [row.id for row in await three.outbox.inspector.rows(Filter())] == [kept.id]


async def test_an_older_file_gets_what_it_has_never_had(journalled, tmp_path):
    folder = tmp_path / "kept"
    async with journalled(folder) as one:
        early = await append_all(one.outbox, 2)
    copy = shutil.copytree(folder, tmp_path / "copy")
    async with journalled(folder) as two:
        late = await append_all(two.outbox, 2)
    async with journalled(copy) as three:
        rows = await three.outbox.inspector.rows(Filter())
        assert sorted(row.id for row in rows) == sorted(each.id for each in [*early, *late])
        assert three.upkeep.state.restored == 2


async def test_an_older_file_gets_the_rest_of_an_object_of_which_it_has_a_part(
    journalled, line, names, tmp_path, monkeypatch
):
    monkeypatch.setattr(bucket, "_ASK_SECONDS", 5.0)
    folder, copy = tmp_path / "kept", tmp_path / "copy"
    async with journalled(folder, accepts=True, dead_seconds=60.0, **AWAY_SOON) as one:
        line.swallow()
        sent = await append_all(one.outbox, 2)
        shutil.copytree(folder, copy)
        sent += await append_all(one.outbox, 2)
        line.heal()
        one.upkeep._journal.timings = replace(QUICK, dead_seconds=60.0)
        await eventually(lambda: one.upkeep.state.missing == 0)
        assert len(names()) == 1
    async with journalled(copy, destination="two") as two:
        [words] = await eventually(lambda: two.upkeep.state.refused)
        assert "The journal has 2 events" in words
        [start] = [each for each in await two.upkeep.starts() if each.unknown]
        assert start.unknown == 2
        await two.upkeep.restore([start.id])
        rows = await two.outbox.inspector.rows(Filter())
        assert sorted(row.id for row in rows) == sorted(each.id for each in sent)


async def test_while_the_bucket_is_away_posts_are_refused_and_what_was_stored_is_put_later(
    journalled, stored, line, monkeypatch
):
    key = IdempotencyKey.of("k", b"body", plain_digests)
    async with journalled() as one:
        await eventually(lambda: one.outbox.failure is None)
        monkeypatch.setattr(bucket, "_ASK_SECONDS", 5.0)
        one.upkeep._journal.timings = replace(QUICK, **AWAY_SOON)
        first, second = event(), event()
        line.swallow()
        with pytest.raises(OutboxUnavailableError, match="can't be written"):
            await one.outbox.intake.append(first, key=key)
        with pytest.raises(OutboxUnavailableError, match="can't be written"):
            await one.outbox.intake.append(second)  # known to be away: nothing is stored
        with pytest.raises(OutboxUnavailableError):
            await one.outbox.intake.append(event(), key=key)  # not there yet
        assert "can't be written" in one.outbox.failure
        line.heal()
        one.upkeep._journal.timings = QUICK
        await eventually(lambda: one.outbox.failure is None)
        await eventually(lambda: set(stored()) == {first.id})

        async def repeated():
            with contextlib.suppress(OutboxUnavailableError):  # another put may be late by then
                return await one.outbox.intake.append(event(), key=key)

        again = await eventually(repeated)
        assert (again.event_id, again.replayed) == (first.id, True)
        assert await one.outbox.intake.find(second.id) is None


async def test_events_may_be_accepted_while_the_bucket_is_away(
    journalled, stored, line, monkeypatch
):
    monkeypatch.setattr(bucket, "_ASK_SECONDS", 5.0)
    turns = Turns()
    async with journalled(accepts=True, dead_seconds=60.0, recorder=turns, **AWAY_SOON) as one:
        line.swallow()
        sent = await append_all(one.outbox, 3)
        await eventually(lambda: turns.figures["journal_away"] == 1)
        one.upkeep._journal.pace = Pace(3.0, lambda: 0.0)  # three puts in all
        for _ in range(3):
            sent += await append_all(one.outbox, 1)
        assert (one.upkeep.state.state, one.upkeep.state.missing) == ("away", 6)
        assert one.outbox.failure is None
        line.heal()
        one.upkeep._journal.timings = replace(QUICK, dead_seconds=60.0)  # nothing else covers them
        await eventually(lambda: one.upkeep.state.missing == 0)
        assert set(stored()) == {each.id for each in sent}
        assert one.upkeep.state.state == "ok"
        await eventually(lambda: turns.figures["journal_away"] == 0)
        async with asyncio.timeout(PATIENCE_SECONDS):  # those while it was away were no puts
            await one.outbox.intake.append(event())


@pytest.mark.parametrize("accepts", [False, True])
async def test_a_repeat_waits_until_its_event_is_in_the_bucket(journalled, may_put, accepts):
    key, first, turns = IdempotencyKey.of("k", b"body", plain_digests), event(), Turns()
    async with journalled(accepts=accepts, recorder=turns) as one:
        may_put.clear()
        posts = [asyncio.create_task(one.outbox.intake.append(first, key=key))]
        await eventually(lambda: one.outbox.intake.find(first.id))
        posts.append(asyncio.create_task(one.outbox.intake.append(event(), key=key)))
        await one.outbox.journalled.reserve(0)  # a commit after its own
        later = turns.made + 2
        await eventually(lambda: turns.made >= later)
        assert not any(post.done() for post in posts)
        may_put.set()
        assert {receipt.event_id for receipt in await asyncio.gather(*posts)} == {first.id}


async def test_a_stop_answers_no_event_that_is_not_in_the_bucket(journalled, may_put):
    sent = event()
    async with journalled() as one:
        may_put.clear()
        posting = asyncio.create_task(one.outbox.intake.append(sent))
        await eventually(lambda: one.outbox.intake.find(sent.id))
    with pytest.raises(OutboxUnavailableError, match="closed"):
        await posting


async def test_a_start_without_the_bucket_serves_when_it_is_back(journalled, s3, s3_environment):
    url = s3.meta.endpoint_url
    async with journalled() as one:
        [sent] = await append_all(one.outbox, 1)
    s3_environment.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
    async with journalled() as two:
        with pytest.raises(OutboxUnavailableError, match="can't be reached"):
            await two.outbox.intake.append(event())
    s3_environment.setenv("AWS_ENDPOINT_URL_S3", url)
    async with journalled() as three:
        assert [row.id for row in await three.outbox.inspector.rows(Filter())] == [sent.id]


async def test_a_bucket_that_stays_away_is_told_once(journalled, s3_environment):
    s3_environment.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
    turns = Turns()
    with capture_logs() as logs:
        async with journalled(recorder=turns):
            await eventually(lambda: turns.made, lambda made: made > 3)
    told = [one["event"] for one in logs if one["event"].startswith("journal_")]
    assert sorted(told) == ["journal_away", "journal_upkeep_failed"]


async def test_a_mark_that_can_not_be_read_keeps_the_outbox_from_serving_and_is_logged(
    journalled, s3, bucket_name
):
    async with journalled() as one:
        await append_all(one.outbox, 1)
    s3.put_object(Bucket=bucket_name, Key="a/b/0123456789ab/mark-1", Body=b"another form")
    with capture_logs() as logs:
        async with journalled() as two:
            with pytest.raises(OutboxUnavailableError, match="not been compared"):
                await two.outbox.intake.append(event())
    told = {(one["event"], one["log_level"]) for one in logs}
    assert ("journal_upkeep_failed", "error") in told


def configured(path: Path, bucket_name: str, **more: str) -> Settings:
    return Settings.load(
        {
            "OUTBOX_URL": f"sqlite:///{path}",
            "OUTBOX_JOURNAL": f"s3://{bucket_name}/a",
            "AWS_S3_REGION": REGION,
            "INNGEST_DEV": "http://127.0.0.1:9",
            **more,
        }
    )


async def test_the_configuration_says_whether_events_are_accepted_without_the_bucket(
    bucket_name, tmp_path, s3_environment
):
    s3_environment.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
    made = []

    def make(*given):
        made.append(given)
        return Bucket(*given)

    s3_environment.setattr(journal_parts, "Bucket", make)
    settings = configured(tmp_path / "one.db", bucket_name, OUTBOX_JOURNAL_AWAY="accept")
    async with open_outbox(settings) as outbox:
        await outbox.intake.append(event())
    assert made == [(bucket_name, REGION)]
    async with open_outbox(configured(tmp_path / "two.db", bucket_name)) as outbox:
        with pytest.raises(OutboxUnavailableError, match="can't be reached"):
            await outbox.intake.append(event())


async def test_the_configuration_says_how_many_objects_are_put_in_a_second(
    bucket_name, tmp_path, s3_environment, monkeypatch
):
    """They come within one second of the journal's clock; by default 20 would."""
    at_once = replace(PATIENT, clock=lambda: 1000.0)
    monkeypatch.setattr(journal, "JournalTimings", lambda: at_once)
    rate = {"OUTBOX_JOURNAL_PUTS_PER_SECOND": "40"}
    async with open_outbox(configured(tmp_path / "outbox.db", bucket_name, **rate)) as outbox:
        async with asyncio.timeout(PATIENCE_SECONDS):
            for _ in range(30):
                await outbox.intake.append(event())


async def test_machines_need_no_bucket_but_the_journals(bucket_name, tmp_path, s3_environment):
    variables = {
        "OUTBOX_URL": f"sqlite:///{tmp_path / 'outbox.db'}",
        "OUTBOX_JOURNAL": f"s3://{bucket_name}/a",
        "OUTBOX_EVENT_KEYS": "shop:0123456789abcdef",
        "AWS_S3_REGION": REGION,
        "INNGEST_DEV": f"http://127.0.0.1:{free_port()}",
    }
    async with service_here(variables) as service, ClientSession() as http:
        answer = await (await http.get(f"{service.url}/readyz")).json()
    assert (answer["status"], answer["faults"]) == ("ready", [])


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


async def test_an_outbox_shows_that_it_runs_while_it_has_much_to_put(journalled, monkeypatch):
    monkeypatch.setattr(upkeep, "_PUT_BYTES", 1)
    async with journalled() as lost:
        await append_all(lost.outbox, 30)
    async with journalled() as one:
        one.upkeep._journal.pace = Pace(1.0, time.monotonic)
        [sent] = await append_all(one.outbox, 1)
        async with journalled(ask_seconds=3.0) as two:
            assert "another outbox that runs" in two.upkeep.state.refused[0]
            assert await two.outbox.intake.find(sent.id) is None


async def test_of_a_start_whose_disk_is_lost_nothing_stays_but_events(journalled, s3, bucket_name):
    async def kinds():
        found = await asyncio.to_thread(s3.list_objects_v2, Bucket=bucket_name)
        return {re.search("live|mark|/0", one["Key"])[0] for one in found.get("Contents", [])}

    async def an_hour_later():
        ahead_seconds[0] += QUICK.late_seconds
        return await kinds()

    def clock():
        return time.monotonic() + ahead_seconds[0]

    async def three_turns():
        later = turns.made + 3
        await eventually(lambda: turns.made >= later)

    ahead_seconds, turns = [0.0], Turns()
    async with journalled(clock=clock, recorder=turns, sweep_seconds=1e6) as one:
        await an_hour_later()
        await three_turns()
        [gone] = await append_all(one.outbox, 1)
        await one.outbox.repairs.discard(Named(ids=(gone.id,)), actor="ada")
        await eventually(kinds, {"live", "mark", "/0"}.__eq__)
        journal = one.upkeep._journal
        journal.timings = replace(journal.timings, sweep_seconds=0.0)
        await eventually(kinds, {"live", "mark"}.__eq__)
        await three_turns()  # an earlier put may land for an hour
    s3.put_object(Bucket=bucket_name, Key="a/b/0123456789ab/live", Body=b"")  # it was killed
    s3.put_object(Bucket=bucket_name, Key="a/b/0123456789ab/0000000000000009-1", Body=b"")
    async with journalled(clock=clock) as two:
        assert await kinds() >= {"mark", "/0"}
        assert two.upkeep.state.refused == ()
        await eventually(an_hour_later, {"live"}.__eq__)
    assert await kinds() == set()


async def test_events_of_an_outbox_that_has_ended_since_come_back_later(journalled):
    ahead_seconds = [0.0]

    def clock() -> float:
        return time.monotonic() + ahead_seconds[0]

    async with contextlib.AsyncExitStack() as running:
        one = await running.enter_async_context(journalled())
        await append_all(one.outbox, 2)
        async with journalled(ask_seconds=3.0, clock=clock) as two:
            assert (two.upkeep.state.restored, len(two.upkeep.state.refused)) == (0, 1)
            await running.aclose()
            ahead_seconds[0] = QUICK.late_seconds
            await eventually(lambda: two.upkeep.state.restored == 2)
            assert two.upkeep.state.refused == ()


async def test_events_for_another_inngest_are_left_alone_unless_told(journalled):
    async with journalled() as one:
        await append_all(one.outbox, 2)
    async with journalled(destination="two") as two:
        [words] = two.upkeep.state.refused
        assert "another Inngest, one" in words
        [start] = [each for each in await two.upkeep.starts() if each.unknown]
        await two.upkeep.restore([start.id])
        assert two.upkeep.state.restored == 2
        starts = await eventually(
            two.upkeep.starts,
            lambda found: any(each.objects for each in found if each.id != start.id),
        )
        assert not any(each.unknown for each in starts)  # also of what it put itself


async def test_what_can_not_be_read_stays_and_is_told_whatever_else_comes_back(
    journalled, s3, bucket_name, names
):
    unread = "a/b/0123456789ab/0000000000000099-1"
    for key in (unread, f"{unread}.copy"):  # the second is no part of a journal
        s3.put_object(Bucket=bucket_name, Key=key, Body=b"another form")
    async with journalled() as one:
        assert "a form that can't be read" in one.upkeep.state.refused[0]
        for _ in range(17):  # more objects than are read at a time
            await one.outbox.intake.append(event())
        old = {name for name in names() if not name.startswith(unread)}
    async with journalled() as two:
        assert two.upkeep.state.restored == 17
        [words] = two.upkeep.state.refused
        assert "1 events under 0123456789ab" in words
        await eventually(lambda: old.isdisjoint(names()))
        assert unread in names()


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


@pytest.mark.parametrize(
    ("status", "tries"), [(400, 1), (403, 1), (404, 1), (408, 3), (409, 3), (429, 3), (503, 3)]
)
@in_virtual_time
async def test_a_put_that_the_bucket_did_not_decide_is_tried_again(status, tries):
    class Answering(BucketLine):
        asked = 0

        async def put(self, name: str, *given: Any, **options: Any) -> bool:
            self.asked += 1
            if self.asked < 3:
                answer = {"ResponseMetadata": {"HTTPStatusCode": status}}
                raise StorageUnavailableError from ClientError(answer, "PutObject")
            return await super().put(name, *given, **options)

    line = Answering(MemoryBucket(random.Random(1)))
    made = S3Journal(line, "one", NullRecorder(), timings=JournalTimings(clock=now))
    with contextlib.suppress(StorageUnavailableError):
        await made.try_put("a", b"a")
    assert line.asked == tries


async def test_an_object_that_s3_keeps_or_does_not_show_is_told():
    class Keeping:
        name = "b"

        @contextlib.asynccontextmanager
        async def client_for(self, seconds: float) -> AsyncIterator[Any]:
            with s3_errors():
                yield self

        async def head_object(self, **_: Any) -> None:
            answer = {"ResponseMetadata": {"HTTPStatusCode": 403}}
            raise ClientError(answer, "HeadObject")

        async def delete_objects(self, **_: Any) -> dict[str, Any]:
            return {"Errors": [{"Key": "a", "Code": "AccessDenied"}]}

    one = JournalBucket(Keeping(), "")
    assert one.address == "s3://b"
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


async def test_outboxes_with_prefixes_of_their_own_do_not_see_each_other(journalled):
    async with journalled(prefix="one") as one:
        await append_all(one.outbox, 2)
    async with journalled(prefix="two") as two:
        assert two.upkeep.state.restored == 0
        assert two.upkeep.state.refused == ()


@in_virtual_time
async def test_posts_that_use_the_whole_pace_leave_the_upkeep_its_turns():
    pace = Pace(20.0, now)

    async def post():
        while True:
            await asyncio.sleep(pace.wait_seconds())
            pace.take()

    posting = asyncio.create_task(post())
    async with asyncio.timeout(60):
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


async def test_people_see_the_journal_and_bring_back_what_was_left_alone(
    bucket_name, tmp_path, s3_environment, journalled
):
    async with journalled(destination="another", prefix="a") as one:
        await append_all(one.outbox, 2)
    path = tmp_path / "outbox.db"
    variables = {
        "OUTBOX_URL": f"sqlite:///{path}",
        "OUTBOX_JOURNAL": f"s3://{bucket_name}/a",
        "AWS_S3_BUCKET": bucket_name,
        "AWS_S3_REGION": REGION,
        "INNGEST_DEV": f"http://127.0.0.1:{free_port()}",
        "OPERATOR_EMAILS": "op@example.com",
    }
    for name, value in variables.items():
        s3_environment.setenv(name, value)
    async with service_here(variables) as service:
        operator = Poster(service.url)
        async with operator.http:
            await operator.sign_in("op")
            status, answer = await operator.ask("GET", "/readyz")
            journal = answer["detail"]["journal"]
            assert (status, journal["state"], journal["missing"]) == (200, "ok", 0)
            async with operator.http.get(f"{service.url}/outbox") as page:
                assert "another Inngest, another" in await page.text()
        stats = await outbox_json(path, "stats")
        assert "another Inngest, another" in stats["journal"]["refused"][0]
        [start] = [each for each in await _starts(path) if each["unknown"]]
        code, out, _ = await outbox_command(path, "journal", "--restore", start["id"])
        held, unknown = f"{start['objects']:,} objects, {start['bytes']:,} bytes", "2 events"
        assert (code, *out.splitlines()) == (
            0,
            f"{start['id']}  another file's: {held}; {unknown} that this file has never had",
            "Nothing was changed: give --yes to do it.",
        )
        assert ", runs or was killed: 0 objects, " in (await outbox_command(path, "journal"))[1]
        assert (await outbox_json(path, "stats"))["pending"] == 0
        code, out, _ = await outbox_command(path, "journal", "--restore", start["id"], "--yes")
        back = "Brought back 2 pending and 0 dead events; 0 are older than Inngest remembers"
        assert (code, back in out) == (0, True)
        stats = await eventually(
            lambda: outbox_json(path, "stats"), lambda stats: stats["journal"]["restored"]
        )
        assert (stats["pending"] + stats["delivering"], stats["journal"]["restored"]) == (2, 2)
        _, out, _ = await outbox_command(path, "journal", "--restore", start["id"], "--yes")
        assert "Brought back 0 pending" in out  # exit code 1 once nothing is left of that start
        _, out, _ = await outbox_command(path, "stats")
        assert f"\njournal s3://{bucket_name}/a: ok, " in out
        assert "\n2 events came back from it, 0 dead; 0 may run twice\n" in out
    code, out, _ = await outbox_command(path, "journal")
    assert (code, "this file's" in out) == (0, True)
    code, out, err = await outbox_command(path, "journal", "--restore", "0" * 12)
    assert (code, out.splitlines()[0]) == (1, "There is nothing of that in the journal."), err
    lost = path.with_name("lost.db")  # OUTBOX_URL still names the other
    code, out, _ = await outbox_command(lost, "journal")
    assert (code, "this file's" in out, "another file's" in out) == (0, False, True)


async def test_a_command_without_a_service_marks_what_it_removes(
    bucket_name, tmp_path, s3_environment, journalled
):
    path, inngest = tmp_path / "outbox.db", f"http://127.0.0.1:{free_port()}"
    async with journalled(tmp_path, prefix="a", destination=inngest) as one:
        kept, gone = await append_all(one.outbox, 2)
    for name, value in {
        "OUTBOX_URL": f"sqlite:///{path}",
        "OUTBOX_JOURNAL": f"s3://{bucket_name}/a",
        "AWS_S3_REGION": REGION,
        "INNGEST_DEV": inngest,
    }.items():
        s3_environment.setenv(name, value)
    copy = tmp_path / "copy.db"
    shutil.copy(path, copy)
    for file, event_id in ((path, gone.id), (copy, kept.id)):  # the journal is not the copy's
        code, _, err = await outbox_command(file, "discard", event_id, "--yes")
        assert code == 0, err
    async with journalled(prefix="a", destination=inngest) as two:
        assert [row.id for row in await two.outbox.inspector.rows(Filter())] == [kept.id]


async def test_fake_inngests_at_two_addresses_are_one(
    bucket_name: str, tmp_path: Path, s3_environment: pytest.MonkeyPatch
) -> None:
    found = []
    for port in (8288, 8289):
        given = {
            "OUTBOX_URL": f"sqlite:///{tmp_path / str(port)}.db",
            "OUTBOX_JOURNAL": f"s3://{bucket_name}/a",
            "AWS_S3_REGION": REGION,
        }
        settings = Settings.load(given).with_fake_inngest(f"http://127.0.0.1:{port}")
        async with open_outbox(settings) as outbox:
            if not found:
                await append_all(outbox, 1)
            found.append([row.id for row in await outbox.inspector.rows(Filter())])
    assert found[0] == found[1]


async def _starts(path: Path) -> list[dict[str, Any]]:
    return (await outbox_json(path, "journal"))["starts"]
