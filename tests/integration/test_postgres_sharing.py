"""Several processes on one PostgreSQL outbox, each a store of its own here, and their breakers."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator

import psycopg
import pytest

from inngest_outbox.errors import IdempotencyKeyReusedError
from inngest_outbox.outbox.keys import IdempotencyKey, Receipt
from inngest_outbox.outbox.limits import FairShare
from inngest_outbox.outbox.model import Settlement
from inngest_outbox.outbox.schema import known_ids, migrate
from inngest_outbox.relay.breaker import Breaker
from inngest_outbox.relay.breaker_sync import BreakerSync
from inngest_outbox.relay.sends import BreakerState
from tests.support.beside import beside
from tests.support.postgres_server import PostgresServer
from tests.support.posting import can_append
from tests.support.storage import (
    Outbox,
    PostgresStorage,
    append_all,
    ask,
    claim,
    deliver,
    event,
    eventually,
    ids,
)

# Deliveries are paused and a row is dead, both at one moment.
CHANGE = """
UPDATE outbox.delivery SET paused_by = 'kim'; UPDATE outbox.totals SET dead = dead + 1
"""
WAITING = """
SELECT pid FROM pg_stat_activity WHERE query LIKE '/* STATS */%' AND wait_event_type = 'Lock'
"""


@pytest.fixture
async def pair(postgres_url: str) -> AsyncIterator[tuple[Outbox, Outbox]]:
    storage = PostgresStorage(postgres_url)
    async with storage.open() as one, storage.open() as two:
        yield one, two


async def test_a_claim_that_waits_in_one_process_wakes_for_another_ones_event(
    pair: tuple[Outbox, Outbox],
) -> None:
    one, two = pair
    waiting = asyncio.create_task(claim(one))
    [sent] = await append_all(two, 1)
    assert ids(await waiting) == [sent.id]


async def test_figures_and_pause_are_of_one_moment(
    pair: tuple[Outbox, Outbox], postgres_url: str
) -> None:
    connect = psycopg.AsyncConnection.connect
    async with await connect(postgres_url) as other, await connect(postgres_url) as watching:
        await watching.set_autocommit(True)
        await other.execute("LOCK TABLE outbox.totals IN ACCESS EXCLUSIVE MODE")
        asked = asyncio.create_task(pair[0].inspector.stats())

        async def waiting() -> list[object]:
            return list(await (await watching.execute(WAITING)).fetchall())

        await eventually(waiting)
        await other.execute(CHANGE)
        await other.commit()
        told = await asked
    assert (told.dead, told.delivery.paused_by) in ((0, None), (1, "kim"))


async def test_one_key_at_one_instant_in_two_processes_stores_one_event(
    pair: tuple[Outbox, Outbox],
) -> None:
    """Keys in opposite orders wait for nobody."""
    one, two = pair
    key, other = (IdempotencyKey("k", digest * 32) for digest in (b"1", b"2"))
    answers = await asyncio.gather(
        one.intake.append(event(), key=key),
        two.intake.append(event(), key=other),
        return_exceptions=True,
    )
    assert {type(answer) for answer in answers} == {Receipt, IdempotencyKeyReusedError}
    for number in range(20):
        key = IdempotencyKey(f"one-{number}", b"1" * 32)
        receipts = await asyncio.gather(*(each.intake.append(event(), key=key) for each in pair))
        assert len({receipt.event_id for receipt in receipts}) == 1
        assert sorted(receipt.replayed for receipt in receipts) == [False, True]
    keys = [IdempotencyKey(f"k-{number}", b"1" * 32) for number in range(100)]
    receipts = await asyncio.gather(
        *(one.intake.append(event(), key=key) for key in keys),
        *(two.intake.append(event(), key=key) for key in reversed(keys)),
    )
    assert len({receipt.event_id for receipt in receipts}) == 100
    assert sum(receipt.replayed for receipt in receipts) == 100


async def test_no_row_is_sent_by_two_processes_at_the_same_time(postgres_url: str) -> None:
    storage = PostgresStorage(postgres_url)
    async with (
        storage.open() as one,
        storage.open() as two,
        storage.open() as three,
        storage.open() as four,
    ):
        stores = (one, two, three, four)
        wanted = 1200
        sending: Counter[str] = Counter()
        sent: Counter[str] = Counter()

        async def post(outbox: Outbox) -> None:
            for _ in range(wanted // 4 // 50):
                await asyncio.gather(*(outbox.intake.append(event()) for _ in range(50)))

        async def send(outbox: Outbox) -> None:
            while True:
                batch = await outbox.queue.claim(ask(17))
                sending.update(ids(batch))
                assert all(sending[each] == 1 for each in ids(batch))
                await asyncio.sleep(0)
                assert await deliver(outbox, batch) == 0
                sending.subtract(ids(batch))
                sent.update(ids(batch))

        senders = [asyncio.create_task(send(store)) for store in stores for _ in range(2)]
        try:
            await asyncio.gather(*(post(store) for store in stores))
            await eventually(one.inspector.stats, lambda stats: stats.delivered == wanted)
            await eventually(lambda: len(sent) == wanted)
            assert not [sender for sender in senders if sender.done()]
        finally:
            for sender in senders:
                sender.cancel()
            await asyncio.gather(*senders, return_exceptions=True)
        assert set(sent.values()) == {1}


async def test_a_process_that_is_gone_gives_its_rows_back_after_the_lease(
    pair: tuple[Outbox, Outbox], postgres_url: str
) -> None:
    """One that starts leaves the claims of the others alone."""
    gone, other = pair
    events = await append_all(gone, 3)
    batch = await claim(gone, ask(lease_seconds=0.5))
    late = await claim(other, ask(lease_seconds=600))
    assert ids(late) == [each.id for each in events]
    seqs = [entry.seq for entry in batch.entries]
    assert await gone.queue.settle(Settlement(batch.claim, delivered=seqs)) == 3
    async with PostgresStorage(postgres_url).open():
        pass
    assert await deliver(other, late) == 0


async def test_a_saved_scope_is_noticed_by_every_process(pair: tuple[Outbox, Outbox]) -> None:
    one, two = pair
    before = two.scopes.scope_revision
    await one.scopes.save_scope("user", "u-1", {"a": 1})
    await eventually(lambda: two.scopes.scope_revision > before)
    assert await two.scopes.load_scope("user", "u-1") == {"a": 1}


async def test_the_limits_count_what_all_processes_took(postgres_url: str) -> None:
    storage = PostgresStorage(postgres_url)
    async with (
        storage.open(max_pending_per_user=4) as one,
        storage.open(max_pending_per_user=4) as two,
    ):
        await append_all(one, 4)
        await eventually(lambda: can_append(two), lambda stored: not stored)


async def test_a_flood_in_one_process_gives_a_share_to_rows_of_another(postgres_url: str) -> None:
    storage = PostgresStorage(postgres_url)
    small = FairShare(noisy_rows=50)
    async with storage.open(fair_share=small) as one, storage.open(fair_share=small) as two:
        await append_all(one, 60, "flood")
        await append_all(two, 1, "kim")  # a process that takes posts reads the counts
        await eventually(lambda: two.quota.has_fair_share("ada"))
        await append_all(two, 5, "ada")
        batch = await claim(one, ask(10))
        assert Counter(entry.user_id for entry in batch.entries) == {"flood": 5, "ada": 5}


async def test_migrations_at_one_instant_apply_once(postgres: PostgresServer) -> None:
    with postgres.database("migrated") as url:
        applied = await asyncio.gather(*(asyncio.to_thread(migrate, url) for _ in range(4)))
        assert sorted(itertools.chain.from_iterable(applied)) == known_ids()


async def test_one_of_two_processes_asks_inngest_until_it_stops_or_is_away(
    pair: tuple[Outbox, Outbox], postgres_url: str
) -> None:
    """Beside an open transaction each write would leave a row that all later questions read."""
    one, two = (each.confirmations for each in pair)
    with psycopg.connect(postgres_url, autocommit=True) as looking:
        turn, seen = "SELECT ctid::text FROM outbox.turns WHERE name = 'confirmation'", set()
        for _ in range(5):
            assert [await one.may_ask(), await two.may_ask()] == [True, False]
            seen |= set(looking.execute(turn).fetchall())
        assert len(seen) == 1  # the turn is not written at each question
        await two.stop_asking()  # it has nothing to give up
        assert [await two.may_ask(), await one.may_ask()] == [False, True]
        await one.stop_asking()
        assert [await two.may_ask(), await one.may_ask()] == [True, False]
        looking.execute("UPDATE outbox.turns SET until = clock_timestamp()")
        assert [await one.may_ask(), await two.may_ask()] == [True, False]
        await one.stop_asking()
        async with PostgresStorage(postgres_url).open() as third:
            assert await third.confirmations.may_ask()
        assert await two.may_ask()


def closed(keeper: BreakerSync, seconds: float) -> Breaker:
    reopens_at = asyncio.get_running_loop().time() + seconds
    return keeper.breaker.resumed(
        BreakerState.BACKING_OFF, reason="HTTP 503", reopens_at=reopens_at
    )


@pytest.fixture
async def keepers(pair: tuple[Outbox, Outbox]) -> AsyncIterator[list[BreakerSync]]:
    """The breakers of both processes."""
    made = [
        BreakerSync(outbox.delivery, Breaker.fresh(500, 2**20, 4), lambda: None) for outbox in pair
    ]
    for keeper in made:
        await keeper.restore()
    async with beside(*(keeper.keep() for keeper in made)):
        yield made


async def test_trouble_and_recovery_are_known_to_a_process_that_has_no_news(
    keepers: list[BreakerSync],
) -> None:
    one, two = keepers
    one.move(closed(one, 60))
    await eventually(lambda: two.breaker.state is BreakerState.BACKING_OFF)
    assert two.breaker.reason == "HTTP 503"
    now = asyncio.get_running_loop().time()
    assert 30 < two.breaker.reopens_at - now < 61

    one.move(Breaker.fresh(500, 2**20, 4))
    await eventually(lambda: two.breaker.reopens_at <= asyncio.get_running_loop().time())
    assert two.breaker.state is BreakerState.BACKING_OFF


async def test_a_process_that_delivers_is_not_held_up_by_anothers_trouble(
    pair: tuple[Outbox, Outbox], keepers: list[BreakerSync]
) -> None:
    one, two = keepers

    async def deliver() -> None:
        while True:
            two.answered(10)
            two.delivered(10)
            await asyncio.sleep(0.01)

    async def two_has_told_since() -> bool:
        record = await pair[0].delivery.load()
        return record.revision > 3 and record.rate > 1

    async with beside(deliver()):
        one.move(closed(one, 60))
        await eventually(two_has_told_since)
        assert two.breaker.state is BreakerState.HEALTHY
