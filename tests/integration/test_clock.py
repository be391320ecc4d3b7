"""A wall clock that jumps an hour either way stops no delivery, and a future ts is counted."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import msgspec
import psycopg
import pytest

from inngest_outbox.dev.fake_inngest.server import FakeInngest
from inngest_outbox.inngest.send_result import SendResult, Signal
from inngest_outbox.outbox.event_ids import USED_MS
from inngest_outbox.outbox.model import Retry, Settlement, State
from inngest_outbox.relay.outcome import Outcome
from inngest_outbox.relay.report import Report
from tests.support.delivery import delivering
from tests.support.delivery_world import Remembering
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
)

HOUR = 3600.0
# The clock of the database itself can't be moved: instead all that it has noted is later.
SET_BACK = """
LOCK TABLE outbox.watermarks;
UPDATE outbox.ready SET due_at = due_at + interval '1 hour';
UPDATE outbox.claims SET lease_until = lease_until + interval '1 hour',
    claimed_at_ms = claimed_at_ms + 3600000;
UPDATE outbox.sent SET sent_at_ms = sent_at_ms + 3600000;
UPDATE outbox.watermarks SET made_at = made_at + interval '1 hour',
    due_from = due_from + interval '1 hour', isolated_from = isolated_from + interval '1 hour',
    lease_from = lease_from + interval '1 hour';
"""
TURN_OF_A_KILLED_PROCESS = """
UPDATE outbox.turns SET holder = 'killed', until = now() + interval '1 hour'
"""


class WallClock:
    """Real time, moved by `jump` seconds."""

    def __init__(self) -> None:
        self.jump = 0.0
        self._real = time.time

    def time(self) -> float:
        return self._real() + self.jump


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> WallClock:
    clock = WallClock()
    monkeypatch.setattr(time, "time", clock.time)
    return clock


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_delays_and_leases_end_in_their_time(
    path: Path, wall: WallClock, jump: float
) -> None:
    async with SqliteStorage(path).open() as outbox:
        delayed, leased = [one.id for one in await append_all(outbox, 2)]
        batch = await claim(outbox, ask(1))
        retry = Retry(batch.entries[0].seq, 2.0, 0, isolated=False)
        await outbox.queue.settle(Settlement(batch.claim, retry=[retry]))
        assert ids(await claim(outbox, ask(1, lease_seconds=2.0))) == [leased]
        wall.jump = jump
        [fresh] = await append_all(outbox, 1)
        assert ids(await claim(outbox)) == [fresh.id]
        got = ids(await claim(outbox))
        while len(got) < 2:
            got += ids(await claim(outbox))
        assert sorted(got) == sorted([delayed, leased])


async def test_a_databases_clock_that_is_ahead_purges_nothing(
    postgres_url: str, wall: WallClock
) -> None:
    async with PostgresStorage(postgres_url).open() as outbox:
        await append_all(outbox, 1)
        await deliver(outbox, await claim(outbox))
        wall.jump = -HOUR  # the database's is ahead of it by so much
        assert await outbox.repairs.purge_payloads(older_than_seconds=-1) == 0
        assert await outbox.repairs.purge(older_than_seconds=-1, actor=None) == 0
        wall.jump = 0.0
        assert await outbox.repairs.purge(older_than_seconds=-1, actor=None) == 1
        await append_all(outbox, 1)
        await deliver(outbox, await claim(outbox))
        with psycopg.connect(postgres_url) as connection:  # as a row that a move brings
            connection.execute("UPDATE outbox.done SET settled_at_ms = 1000")
        assert await outbox.repairs.purge(older_than_seconds=-1, actor="ada") == 1


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_an_event_is_sent_at_its_time_though_the_clock_was_wrong_at_the_start(
    path: Path, wall: WallClock, jump: float
) -> None:
    wall.jump = jump
    async with SqliteStorage(path).open() as outbox:
        wall.jump = 0.0
        soon, later = [await asleep(outbox, seconds) for seconds in (1.0, HOUR / 2)]
        got = await claim(outbox)
        assert ids(got) == [soon]
        assert time.time() * 1000 >= got.entries[0].meta.due_at_ms
        assert await claims_nothing(outbox)
        wall.jump = HOUR
        await append_all(outbox, 1)
        assert later in ids(await claim(outbox))


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_what_happens_to_an_event_is_noted_by_the_wall_clock(
    path: Path, wall: WallClock, jump: float
) -> None:
    wall.jump = jump
    async with SqliteStorage(path).open() as outbox:
        wall.jump = 0.0
        events = await append_all(outbox, 2)
        batch = await claim(outbox)
        one, two = (entry.seq for entry in batch.entries)
        await outbox.queue.settle(Settlement(batch.claim, delivered=[one], sent=[two]))
        await outbox.confirmations.confirm([two])
        for event_id in (each.id for each in events):
            row = await outbox.intake.find(event_id)
            assert row is not None
            times = [row.first_sent_at_ms, row.settled_at_ms]
            assert times == pytest.approx([time.time() * 1000] * 2, abs=60_000)


async def test_after_a_restart_by_an_earlier_clock_an_answer_grows_old_and_rows_are_due(
    path: Path, wall: WallClock
) -> None:
    wall.jump = HOUR
    async with SqliteStorage(path).open() as outbox:
        await append_all(outbox, 3)
        batch = await claim(outbox)
        sent, one, two = (entry.seq for entry in batch.entries)
        again = [Retry(one, HOUR, 1, isolated=False), Retry(two, HOUR, 1, isolated=True)]
        await outbox.queue.settle(Settlement(batch.claim, sent=[sent], retry=again))
    wall.jump = 0.0
    async with SqliteStorage(path).open() as outbox:
        await answer_is_old(outbox)
        batches = [await claim(outbox) for _ in again]  # no delay outlives its process
        assert [[entry.seq for entry in batch.entries] for batch in batches] == [[two], [one]]


async def answer_is_old(outbox: Outbox) -> None:
    """Wait until Inngest's answer to the sent event was given a while ago."""
    ask_for = outbox.confirmations.sent
    await eventually(lambda: ask_for(1), lambda found: found[0].sent_seconds > 0)


async def asleep(outbox: Outbox, seconds: float) -> str:
    """The id of an event that its caller wants to be sent after so many seconds."""
    one = event()
    meta = msgspec.structs.replace(one.meta, due_at_ms=int((time.time() + seconds) * 1000))
    await outbox.intake.append(msgspec.structs.replace(one, meta=meta))
    return one.id


async def test_a_databases_clock_that_is_set_back_holds_up_no_delay_lease_or_turn(
    postgres_url: str,
) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(TURN_OF_A_KILLED_PROCESS)
        async with PostgresStorage(postgres_url).open() as outbox:
            await append_all(outbox, 1)
            batch = await claim(outbox)
            await outbox.queue.settle(Settlement(batch.claim, sent=[batch.entries[0].seq]))
            tried, leased = [one.id for one in await append_all(outbox, 2)]
            later = await asleep(outbox, 2 * HOUR)
            batch = await claim(outbox, ask(1))
            retry = Retry(batch.entries[0].seq, 2.0, 0, isolated=False)
            await outbox.queue.settle(Settlement(batch.claim, retry=[retry]))
            assert ids(await claim(outbox, ask(1, lease_seconds=2.0))) == [leased]
            connection.execute(SET_BACK)
            got = ids(await claim(outbox))
            while len(got) < 2:
                got += ids(await claim(outbox))
            assert sorted(got) == sorted([tried, leased])
            row = await outbox.intake.find(later)
            assert row is not None
            assert row.due_in_seconds == pytest.approx(3 * HOUR, abs=600)
            await answer_is_old(outbox)
            connection.execute("SELECT outbox.append('app/saved', '{}')")
            in_inbox = "SELECT count(*) FROM outbox.inbox"
            await eventually(lambda: connection.execute(in_inbox).fetchall() == [(0,)])


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_after_a_restart_by_another_clock_everything_is_due(
    path: Path, wall: WallClock, jump: float
) -> None:
    async with SqliteStorage(path).open() as outbox:
        await append_all(outbox, 3)
        batch = await claim(outbox, ask(1))
        retry = Retry(batch.entries[0].seq, 60, 0, isolated=True)
        await outbox.queue.settle(Settlement(batch.claim, retry=[retry]))
        await claim(outbox, ask(1, lease_seconds=600))
    wall.jump = jump
    async with SqliteStorage(path).open() as outbox:
        for _ in range(2):
            await deliver(outbox, await claim(outbox))
        assert (await outbox.inspector.stats()).delivered == 3


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_delivery_goes_on_over_a_jump(
    tmp_path: Path, inngest_api: FakeInngest, wall: WallClock, jump: float
) -> None:
    async with delivering(tmp_path / "outbox.db", inngest_api) as delivery:
        await delivery.ends(await delivery.accept("before"))
        wall.jump = jump
        rows = await delivery.ends(await delivery.accept("after"))
        assert rows[0].state is State.DELIVERED


async def test_what_is_sent_with_a_future_ts_or_past_the_horizon_is_counted(
    path: Path, wall: WallClock
) -> None:
    async with SqliteStorage(path).open() as outbox:
        wall.jump = HOUR
        await append_all(outbox, 2)
        wall.jump = 0
        early = await claim(outbox)
        recorder = Remembering()
        Report(recorder).begins(early)
        assert recorder.counted == {"sent_with_future_ts": 2}
        agains = [Retry(entry.seq, 0, 0, isolated=False) for entry in early.entries]
        await outbox.queue.settle(Settlement(early.claim, retry=agains))
        retry = await claim(outbox)
        wall.jump = USED_MS / 1000 + 60
        Report(recorder).begins(retry)
        assert recorder.counted["sent_past_dedupe_window"] == 2


async def test_the_servers_clock_shows_ours_to_be_wrong(path: Path) -> None:
    async with SqliteStorage(path).open() as outbox:
        await append_all(outbox, 1)
        batch = await claim(outbox)
    recorder = Remembering()
    answer = SendResult(200, ("01J",), skew_seconds=HOUR)
    settlement = Settlement(batch.claim, delivered=[batch.entries[0].seq])
    Report(recorder).ended(batch, answer, Outcome(settlement, Signal.PASSED), 0.1)
    assert recorder.shown["clock_skew_seconds"] == HOUR
    await asyncio.sleep(0)


async def test_a_clock_that_was_set_back_ends_a_wait_of_before_the_restart(
    path: Path, wall: WallClock
) -> None:
    async with SqliteStorage(path).open() as outbox:
        record = await outbox.delivery.load()
        now_ms = int(time.time() * 1000)
        trouble = msgspec.structs.replace(
            record, state="backing_off", reopens_in_seconds=3.0, since_ms=now_ms
        )
        await outbox.delivery.save(trouble)
    wall.jump = -5 * HOUR
    async with SqliteStorage(path).open() as outbox:
        assert (await outbox.delivery.load()).reopens_in_seconds == 0


async def test_a_clock_that_is_put_right_purges_nothing_that_was_just_delivered(
    path: Path, wall: WallClock
) -> None:
    wall.jump = -48 * HOUR
    async with SqliteStorage(path).open() as outbox:
        await append_all(outbox, 1)
        await deliver(outbox, await claim(outbox))
        wall.jump = 0.0
        assert await outbox.repairs.purge(older_than_seconds=24 * HOUR, actor=None) == 0


async def test_rows_from_the_future_hide_no_late_one(path: Path, wall: WallClock) -> None:
    async with SqliteStorage(path).open() as outbox:
        ahead = [event() for _ in range(3)]
        for one in ahead:
            later = one.accepted_at_ms + 3_600_000
            await outbox.intake.append(msgspec.structs.replace(one, accepted_at_ms=later))
        await append_all(outbox, 1)
        wall.jump = 600.0
        stats = await outbox.inspector.stats()
        assert stats.oldest_pending_seconds == pytest.approx(600, abs=60)
        assert stats.oldest_due_seconds == pytest.approx(600, abs=60)
