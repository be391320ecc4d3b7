"""WEB_CONCURRENCY, serve --no-relay and relay: several processes, one outbox."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from service.errors import OutboxBusyError
from service.fake_inngest.server import FakeInngest
from tests.support.fleet import Client, Process, client, environment, running
from tests.support.front_processes import (
    all_gone,
    children_of,
    delivered,
    fronts_of,
    kill_store,
    two_fronts,
)
from tests.support.storage import SqliteStorage, eventually


async def test_front_processes_share_one_address_and_one_that_is_killed_comes_again(
    store_url: str, inngest_api: FakeInngest
) -> None:
    async with two_fronts(store_url, inngest_api) as (parent, poster):
        first, second = fronts_of(parent)
        statuses = await asyncio.gather(*(poster.post(parent.url) for _ in range(60)))
        assert set(statuses) == {200}
        await delivered(inngest_api, poster.accepted)
        first.kill()
        await parent.said("starting it again")

        async def two_again() -> bool:
            fronts = fronts_of(parent)
            return len(fronts) == 2 and first not in fronts and second in fronts

        await eventually(two_again)
        while await poster.post(parent.url) != 200:
            pass
        await delivered(inngest_api, poster.accepted)
        assert await parent.stop() == 0
    assert "Traceback" not in "".join(parent.lines)


async def test_a_store_process_that_is_killed_comes_again_and_nothing_accepted_is_lost(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    outbox_url = f"sqlite:///{tmp_path / 'outbox.db'}"
    async with two_fronts(outbox_url, inngest_api) as (parent, poster):
        stop = asyncio.Event()

        async def post() -> None:
            while not stop.is_set():
                await poster.post(parent.url)

        posting = [asyncio.create_task(post()) for _ in range(8)]
        for _ in range(3):
            accepted = len(poster.accepted)
            await eventually(more_than(poster, accepted + 50))
            kill_store(parent)
            accepted = len(poster.accepted)
            await eventually(more_than(poster, accepted + 50))
        stop.set()
        await asyncio.gather(*posting)
        await delivered(inngest_api, poster.accepted)
        # What was under way at the kill was refused, and said so.
        assert set(poster.refused) <= {503}
        assert poster.broken == 0
        assert len(fronts_of(parent)) == 2
        assert await parent.stop() == 0


def more_than(poster: Client, count: int) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return len(poster.accepted) > count

    return look


async def test_a_stop_under_load_answers_every_post_that_was_taken(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    outbox_url = f"sqlite:///{tmp_path / 'outbox.db'}"
    async with two_fronts(outbox_url, inngest_api) as (parent, poster):
        posts = [asyncio.create_task(poster.post(parent.url)) for _ in range(300)]
        await eventually(more_than(poster, 20))
        assert await parent.stop() == 0
        assert set(await asyncio.gather(*posts)) <= {200, 0}
    async with two_fronts(outbox_url, inngest_api):
        await delivered(inngest_api, poster.accepted)


async def test_a_setting_saved_at_one_front_is_in_the_next_event_of_another(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    url = f"sqlite:///{tmp_path / 'outbox.db'}"
    async with two_fronts(url, inngest_api) as (parent, poster):
        for round_ in range(10):
            await poster.save_settings(parent.url, {"round": round_})
            assert await poster.post_on_a_new_connection(parent.url) == 200
            arrival = await inngest_api.ledger.wait_for_id(poster.accepted[-1])
            assert arrival is not None
            assert msgspec.json.decode(arrival.event)["data"]["appSettings"]["round"] == round_


async def test_metrics_and_readiness_of_any_front_speak_for_the_whole_service(
    store_url: str, inngest_api: FakeInngest
) -> None:
    async with two_fronts(store_url, inngest_api) as (parent, poster):
        for _ in range(40):
            await poster.post_on_a_new_connection(parent.url)
        await delivered(inngest_api, poster.accepted)
        for _ in range(6):
            figures = await poster.metrics(parent.url)
            assert figures["outbox_accepted_total"] == 40
            assert figures["process_resident_memory_bytes"] > 0

        async def all_counted() -> bool:
            return (await poster.metrics(parent.url)).get("outbox_delivered_total") == 40

        await eventually(all_counted)
        for _ in range(6):
            status, readiness = await poster.readiness(parent.url)
            assert status == 200
            assert readiness["detail"]["delivery"]["state"] == "healthy"


@contextlib.asynccontextmanager
async def taken_from(parent: Process, storage: SqliteStorage) -> AsyncIterator[None]:
    """Hold the outbox, so that no new store process can."""
    async with contextlib.AsyncExitStack() as stack:
        for attempts_left in reversed(range(20)):
            kill_store(parent)
            try:
                await stack.enter_async_context(storage.open())
                break
            except OutboxBusyError:
                assert attempts_left
        yield


async def test_without_its_store_process_a_front_is_unready_and_refuses_soon(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    url = f"sqlite:///{tmp_path / 'outbox.db'}"
    async with two_fronts(url, inngest_api) as (parent, poster):
        async with taken_from(parent, SqliteStorage(tmp_path / "outbox.db")):

            async def unready() -> bool:
                status, readiness = await poster.readiness(parent.url)
                return status == 503 and bool(readiness["faults"])

            await eventually(unready)
            assert await poster.post(parent.url) == 503

        async def accepted_again() -> bool:
            return await poster.post(parent.url) == 200

        await eventually(accepted_again)


async def test_limits_are_exact_over_all_fronts(tmp_path: Path, inngest_api: FakeInngest) -> None:
    url = f"sqlite:///{tmp_path / 'outbox.db'}"
    async with (
        running(
            "serve",
            environment=environment(
                url,
                "http://127.0.0.1:1",
                WEB_CONCURRENCY="2",
                OUTBOX_MAX_PENDING_PER_USER="20",
            ),
        ) as parent,
        client() as poster,
    ):
        await poster.sign_in(parent.url)
        statuses = await asyncio.gather(
            *(poster.post_on_a_new_connection(parent.url) for _ in range(60))
        )
        assert sorted(statuses) == [200] * 20 + [429] * 40


async def test_children_stop_when_their_parent_is_killed(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    outbox_url = f"sqlite:///{tmp_path / 'outbox.db'}"
    async with two_fronts(outbox_url, inngest_api) as (parent, _):
        children = children_of(parent)
        assert len(children) == 3
        parent.kill()
        await parent.ended()
        await all_gone(children)


async def test_children_that_can_not_start_end_the_parent_with_2(tmp_path: Path) -> None:
    settings = environment(
        f"postgresql://outbox@/none?host={tmp_path}", "http://127.0.0.1:1", WEB_CONCURRENCY="2"
    )
    async with running("serve", environment=settings, ready="can't be used") as parent:
        assert await parent.ended() == 2


async def test_intake_and_delivery_run_apart(postgres_url: str, inngest_api: FakeInngest) -> None:
    settings = environment(postgres_url, inngest_api.url)
    async with (
        running("serve", "--no-relay", environment=settings) as intake,
        client() as poster,
    ):
        await poster.sign_in(intake.url)
        for _ in range(5):
            assert await poster.post(intake.url) == 200
        _, readiness = await poster.readiness(intake.url)
        assert readiness["detail"]["undelivered"] == 5
        assert "delivery" not in readiness["detail"]
        assert not any(inngest_api.ledger.times(event_id) for event_id in poster.accepted)
        async with running("relay", environment=settings, ready="Delivering") as relay:
            await delivered(inngest_api, poster.accepted)
            assert await relay.stop() == 0


async def test_an_sqlite_outbox_is_not_served_without_a_relay(tmp_path: Path) -> None:
    settings = environment(f"sqlite:///{tmp_path / 'outbox.db'}", "http://127.0.0.1:1")
    with pytest.raises(AssertionError, match="exactly one process"):
        async with running("serve", "--no-relay", environment=settings):
            pass


async def test_a_second_signal_ends_the_children_at_once(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    outbox_url = f"sqlite:///{tmp_path / 'outbox.db'}"
    async with two_fronts(outbox_url, inngest_api) as (parent, _):
        children = children_of(parent)
        for child in children:
            child.suspend()
        parent.process.send_signal(signal.SIGINT)
        await parent.said("Stopping")
        parent.process.send_signal(signal.SIGINT)
        assert await parent.ended() == 130
        await all_gone(children)
