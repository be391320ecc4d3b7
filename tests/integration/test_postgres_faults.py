"""The PostgreSQL store over connections that break, swallow or hear nothing, and on a standby."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.audit import Deed
from inngest_outbox.outbox.model import Settlement
from inngest_outbox.outbox.postgres.database import availability
from inngest_outbox.outbox.postgres.database.executor import MAX_CONNECTIONS
from inngest_outbox.outbox.postgres.database.pool import PoolTimings
from tests.support.postgres_server import END_OURS, PostgresServer
from tests.support.posting import Posting, can_append, fails_soon, stored
from tests.support.storage import (
    PostgresStorage,
    append_all,
    ask,
    claim,
    event,
    eventually,
    ids,
)
from tests.support.tcp_proxy import TcpProxy

HANGING_SECONDS = 12.0
UNDER_WAY = """
SELECT pid FROM pg_stat_activity
WHERE query LIKE '/* SAMPLES */%%' AND state = 'active' AND wait_event_type = 'Lock'
"""


@pytest.fixture(autouse=True)
def patient_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine that connects again after a second has no lost database."""
    monkeypatch.setattr(availability, "_GRACE_SECONDS", 20.0)


@pytest.fixture
async def proxy(postgres: PostgresServer) -> AsyncIterator[TcpProxy]:
    async with TcpProxy(postgres.socket) as passing:
        yield passing


def through(proxy: TcpProxy) -> PostgresStorage:
    return PostgresStorage(f"postgresql://outbox@127.0.0.1:{proxy.port}/outbox")


async def test_broken_connections_are_not_noticed_by_posts(
    postgres: PostgresServer, postgres_url: str
) -> None:
    async with PostgresStorage(postgres_url).open() as outbox:
        posting = Posting(outbox)
        async with posting.under_way():
            for _ in range(5):
                await posting.more(20)
                with psycopg.connect(postgres.url(), autocommit=True) as connection:
                    connection.execute(END_OURS)
            await posting.more(20)
        found = await stored(outbox)
        assert posting.failed == 0
        assert set(posting.accepted) <= set(found)
        assert len(found) == len(set(found))


async def test_a_black_hole_fails_posts_soon_and_is_left_when_it_heals(
    postgres_url: str, proxy: TcpProxy
) -> None:
    """It takes connections and answers none; each that is given up stays one in the server."""
    async with through(proxy).open(timings=PoolTimings()) as outbox:
        await append_all(outbox, 3)
        proxy.swallow()
        until = time.monotonic() + HANGING_SECONDS
        await asyncio.gather(*(fails_soon(outbox) for _ in range(20)))
        while time.monotonic() < until:
            await fails_soon(outbox)
        assert proxy.accepted <= MAX_CONNECTIONS + 2
        proxy.heal()
        await eventually(lambda: can_append(outbox))


async def test_a_claim_whose_answer_was_lost_comes_back_long_before_its_lease(
    postgres_url: str, proxy: TcpProxy
) -> None:
    async with through(proxy).open() as outbox, PostgresStorage(postgres_url).open() as other:
        await append_all(outbox, 1)
        await claim(outbox, ask(lease_seconds=600))
        events = await append_all(other, 2)
        proxy.swallow_answers()
        lost = asyncio.create_task(outbox.queue.claim(ask(lease_seconds=600)))

        async def claimed() -> bool:
            return (await other.inspector.stats()).delivering == 3

        await eventually(claimed)
        proxy.cut()
        await asyncio.gather(lost, return_exceptions=True)

        async def comes_back() -> list[str]:
            try:
                return ids(await outbox.queue.claim(ask()))
            except OutboxUnavailableError:
                return []

        assert await eventually(comes_back) == [each.id for each in events]


async def test_a_standby_that_answers_takes_no_events_until_it_is_primary(
    postgres: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(availability, "_GRACE_SECONDS", 0.5)  # each post here waits so long

    def set_read_only(value: str) -> None:
        with psycopg.connect(postgres.url(), autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE outbox SET default_transaction_read_only = {value}")
            connection.execute(END_OURS)

    async with PostgresStorage(postgres_url).open() as outbox:
        await append_all(outbox, 1)
        set_read_only("on")
        try:
            await fails_soon(outbox)
        finally:
            set_read_only("off")
        await eventually(lambda: can_append(outbox))


async def test_a_closed_outbox_takes_nothing(postgres_url: str) -> None:
    async with PostgresStorage(postgres_url).open() as outbox:
        pass
    with pytest.raises(OutboxUnavailableError):
        await outbox.intake.append(event())
    with pytest.raises(OutboxUnavailableError):
        await outbox.inspector.stats()


@pytest.mark.parametrize("part", [2, 1])
async def test_a_settlement_whose_answer_was_lost_is_no_lost_lease(
    postgres_url: str, proxy: TcpProxy, part: int
) -> None:
    """Also one of a part of the batch: its claim is still there when it is repeated."""
    async with through(proxy).open() as outbox, PostgresStorage(postgres_url).open() as other:
        await append_all(outbox, 2)
        batch = await claim(outbox)
        settlement = Settlement(batch.claim, delivered=[one.seq for one in batch.entries[:part]])
        proxy.swallow_answers()
        settling = asyncio.create_task(outbox.queue.settle(settlement))
        await eventually(other.inspector.stats, lambda stats: stats.delivered == part)
        proxy.cut()
        assert await settling == 0


@pytest.mark.parametrize("slow", ["SETTLE", "ANSWERED"])
async def test_a_settlement_that_was_late_and_ran_is_no_lost_lease(
    postgres_url: str, slow: str
) -> None:
    async with PostgresStorage(postgres_url).open() as outbox:
        await append_all(outbox, 2)
        batch = await claim(outbox)
        seqs = [one.seq for one in batch.entries]
        settlement = Settlement(
            batch.claim, delivered=seqs, answered=[(seqs[0], "01JB8Z0000000000000000000A")]
        )
        run = outbox.pool.run

        async def late(statement: str, *given: Any, **options: Any) -> Any:
            rows = await run(statement, *given, **options)
            if statement == slow:
                raise OutboxUnavailableError
            return rows

        outbox.pool.run = late
        with pytest.raises(OutboxUnavailableError):
            await outbox.queue.settle(settlement)
        outbox.pool.run = run
        assert await outbox.queue.settle(settlement) == 0
        assert (await outbox.inspector.stats()).delivered == 2


async def test_a_pause_whose_answer_was_lost_is_made_once(
    postgres_url: str, proxy: TcpProxy
) -> None:
    """Somebody resumes before it is repeated."""
    async with through(proxy).open() as outbox, PostgresStorage(postgres_url).open() as other:
        await outbox.delivery.load()
        proxy.swallow_answers()
        pausing = asyncio.create_task(outbox.repairs.set_paused(paused=True, actor="ada"))
        await eventually(other.delivery.load, lambda record: record.paused_by == "ada")
        await other.repairs.set_paused(paused=False, actor="bob")
        proxy.cut()
        await pausing
        assert (await other.delivery.load()).paused_by is None
        acts = await other.inspector.audit(10)
    assert [(one.actor, one.action) for one in acts] == [("bob", "resume"), ("ada", "pause")]


async def test_a_bulk_change_of_settings_whose_answer_was_lost_is_in_the_audit_once(
    postgres_url: str, proxy: TcpProxy
) -> None:
    async with through(proxy).open() as outbox, PostgresStorage(postgres_url).open() as other:
        await outbox.delivery.load()
        proxy.swallow_answers()
        deed = Deed("ada", "sign-out", "one")
        save = outbox.scopes.save_audited("session", {"u-1": {}}, deed)
        saving = asyncio.create_task(save)
        await eventually(
            lambda: other.scopes.load_scope("session", "u-1"), lambda found: found is not None
        )
        proxy.cut()
        await saving
        assert [one.action for one in await other.inspector.audit(10)] == ["sign-out"]


async def test_searches_that_take_long_refuse_no_post(postgres_url: str) -> None:
    timings = PoolTimings(connection_seconds=5.0, statement_seconds=8.0, ask_seconds=20.0)
    async with PostgresStorage(postgres_url).open(timings=timings) as outbox:
        await append_all(outbox, 1)
        with (
            psycopg.connect(postgres_url) as holder,
            psycopg.connect(postgres_url, autocommit=True) as looking,
        ):
            holder.execute("LOCK TABLE outbox.samples")

            async def under_way() -> int:
                return len(looking.execute(UNDER_WAY).fetchall())

            searches = [
                asyncio.create_task(outbox.samples.between(0, 1))
                for _ in range(2 * MAX_CONNECTIONS + 1)
            ]
            await eventually(under_way, lambda count: count == MAX_CONNECTIONS // 2)
            assert all([await can_append(outbox) for _ in range(20)])
            assert await under_way() <= MAX_CONNECTIONS // 2
            for one in searches:
                one.cancel()
