"""WEB_CONCURRENCY, serve --no-relay and relay: several processes, one PostgreSQL outbox."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import psutil
import pytest

from service.fake_inngest.server import FakeInngest
from tests.support.fleet import client, environment, running
from tests.support.storage import eventually


async def delivered(api: FakeInngest, ids: list[str]) -> None:
    async def arrived() -> bool:
        return all(api.ledger.times(event_id) for event_id in ids)

    await eventually(arrived)


async def all_gone(workers: list[psutil.Process]) -> None:
    async def gone() -> bool:
        return not any(worker.is_running() for worker in workers)

    await eventually(gone)


def workers_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children()


async def test_several_processes_share_one_address_and_one_that_is_killed_comes_again(
    postgres_url: str, inngest_api: FakeInngest
) -> None:
    settings = environment(postgres_url, inngest_api.url, WEB_CONCURRENCY="2")
    async with running("serve", environment=settings) as parent, client() as poster:
        await poster.sign_in(parent.url)
        first, second = workers_of(parent.process.pid)
        statuses = await asyncio.gather(*(poster.post(parent.url) for _ in range(60)))
        assert set(statuses) == {200}
        await delivered(inngest_api, poster.accepted)
        first.kill()
        await parent.said("starting it again")

        async def two_again() -> bool:
            pids = {worker.pid for worker in workers_of(parent.process.pid)}
            return len(pids) == 2 and first.pid not in pids and second.pid in pids

        await eventually(two_again)
        while await poster.post(parent.url) != 200:
            pass
        await delivered(inngest_api, poster.accepted)
        assert await parent.stop() == 0
    assert "Traceback" not in "".join(parent.lines)


async def test_workers_stop_when_their_parent_is_killed(
    postgres_url: str, inngest_api: FakeInngest
) -> None:
    settings = environment(postgres_url, inngest_api.url, WEB_CONCURRENCY="2")
    async with running("serve", environment=settings) as parent, client() as poster:
        await poster.sign_in(parent.url)
        workers = workers_of(parent.process.pid)
        parent.kill()
        await parent.ended()
        await all_gone(workers)


async def test_workers_that_can_not_start_end_the_parent_with_2(tmp_path: Path) -> None:
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


async def test_a_second_signal_ends_the_workers_at_once(
    postgres_url: str, inngest_api: FakeInngest
) -> None:
    settings = environment(postgres_url, inngest_api.url, WEB_CONCURRENCY="2")
    async with running("serve", environment=settings) as parent, client() as poster:
        await poster.sign_in(parent.url)
        workers = workers_of(parent.process.pid)
        for worker in workers:
            os.kill(worker.pid, signal.SIGSTOP)
        parent.process.send_signal(signal.SIGINT)
        await parent.said("Stopping")
        parent.process.send_signal(signal.SIGINT)
        assert await parent.ended() == 130
        await all_gone(workers)
