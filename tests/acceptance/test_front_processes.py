"""A service of several processes on one outbox, and what it does while one of them is away."""

from __future__ import annotations

import asyncio
import contextlib
import glob
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from inngest_outbox.dev.fake_inngest.server import FakeInngest
from inngest_outbox.errors import OutboxBusyError
from inngest_outbox.outbox.schema import migrate
from tests.acceptance.conftest import module_fixture
from tests.support.fleet import Client, Process, client
from tests.support.front_processes import (
    delivered,
    fronts_of,
    kill_store,
    more_accepted,
    two_fronts,
)
from tests.support.postgres_server import PostgresServer
from tests.support.storage import SqliteStorage, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")
ON_SQLITE = pytest.mark.parametrize("outbox_url", ["sqlite"], indirect=True)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fronts") / "outbox.db"


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def outbox_url(request: pytest.FixtureRequest, path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{path}"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    with server.database("fronts") as url:
        migrate(url)
        yield url


@pytest.fixture(scope="module")
def run_folder() -> Iterator[Path]:
    """Short: the path of a Unix socket has about a hundred characters at most."""
    with tempfile.TemporaryDirectory(prefix="o-", dir="/tmp") as folder:
        yield Path(folder)


@module_fixture
async def parent(outbox_url: str, inngest: FakeInngest, run_folder: Path) -> AsyncIterator[Process]:
    """What every test leaves as it found it: two fronts that deliver, and at the end stop well."""
    settings = {"RUNTIME_DIRECTORY": str(run_folder), "OPERATOR_EMAILS": "ada@example.com"}
    async with two_fronts(outbox_url, inngest, **settings) as (parent, _):
        yield parent
        assert await parent.stop() == 0


@pytest_asyncio.fixture(loop_scope="module")
async def poster(parent: Process) -> AsyncIterator[Client]:
    async with client() as one:
        await one.sign_in(parent.url)
        yield one


async def test_front_processes_share_one_address_and_one_that_is_killed_comes_again(
    parent: Process, poster: Client, inngest: FakeInngest, run_folder: Path
) -> None:
    first, second = fronts_of(parent)

    async def with_gauges() -> set[str]:
        files = await asyncio.to_thread(glob.glob, f"{run_folder}/outbox-*/metrics/gauge_*.db")
        return {one.removesuffix(".db").rpartition("_")[2] for one in files}

    await eventually(with_gauges, lambda found: str(first.pid) in found)
    statuses = await asyncio.gather(*(poster.post(parent.url) for _ in range(60)))
    assert set(statuses) == {200}
    await delivered(inngest, poster.accepted)
    first.kill()

    async def two_again() -> bool:
        fronts = fronts_of(parent)
        return len(fronts) == 2 and first not in fronts and second in fronts

    await eventually(two_again)
    await parent.said(r"^Front process [12] ended with -9: starting it again\.$")
    await eventually(with_gauges, lambda found: str(first.pid) not in found)
    while await poster.post(parent.url) != 200:
        pass
    await delivered(inngest, poster.accepted)


@ON_SQLITE
async def test_a_store_process_that_is_killed_comes_again_and_nothing_accepted_is_lost(
    parent: Process, poster: Client, inngest: FakeInngest
) -> None:
    stop = asyncio.Event()

    async def post() -> None:
        while not stop.is_set():
            await poster.post(parent.url)
            await asyncio.sleep(0.02)

    posting = [asyncio.create_task(post()) for _ in range(4)]
    for _ in range(2):
        await more_accepted(poster, 50)
        kill_store(parent)
        await more_accepted(poster, 50)
    stop.set()
    await asyncio.gather(*posting)
    await delivered(inngest, poster.accepted)
    # What was under way at the kill was refused, and said so.
    assert set(poster.refused) <= {503}
    assert poster.broken == 0
    assert len(fronts_of(parent)) == 2


@ON_SQLITE
async def test_a_setting_saved_at_one_front_is_in_the_next_event_of_another(
    parent: Process, poster: Client, inngest: FakeInngest
) -> None:
    for round_ in range(10):
        await poster.save_settings(parent.url, {"round": round_})
        assert await poster.post_on_a_new_connection(parent.url) == 200
        arrival = await inngest.ledger.wait_for_id(poster.accepted[-1])
        assert msgspec.json.decode(arrival.event)["data"]["appSettings"]["round"] == round_


async def test_metrics_and_readiness_of_any_front_speak_for_the_whole_service(
    parent: Process, poster: Client, inngest: FakeInngest
) -> None:
    async def undelivered() -> object:
        return (await poster.readiness(parent.url))[1]["detail"]["undelivered"]

    async def at_rest() -> dict[str, float] | None:
        """An event of an earlier test is counted a moment after it is settled."""
        first = await poster.metrics(parent.url)
        await asyncio.sleep(0.5)
        figures = await poster.metrics(parent.url)
        is_same = figures["outbox_delivered_total"] == first["outbox_delivered_total"]
        return figures if is_same else None

    await eventually(undelivered, lambda count: count == 0)
    before = await eventually(at_rest)
    assert before is not None
    for _ in range(40):
        await poster.post_on_a_new_connection(parent.url)
    await delivered(inngest, poster.accepted)
    for _ in range(6):
        figures = await poster.metrics(parent.url)
        assert figures["outbox_accepted_total"] - before["outbox_accepted_total"] == 40
        assert figures["process_resident_memory_bytes"] > 0

    async def counted() -> float:
        now = await poster.metrics(parent.url)
        return now["outbox_delivered_total"] - before["outbox_delivered_total"]

    await eventually(counted, lambda count: count == 40)
    for _ in range(6):
        status, readiness = await poster.readiness(parent.url)
        assert status == 200
        assert readiness["detail"]["delivery"]["state"] == "healthy"
    assert (await poster.figures(parent.url)).startswith("event: ")
    asked = {"event": poster.accepted[-1], "confirmed": "yes"}
    async with poster.session.post(f"{parent.url}/outbox/discard", data=asked) as answer:
        assert answer.status == 200
    figures = await poster.metrics(parent.url)
    assert figures['outbox_operator_actions_total{action="discard"}'] == 1


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


@ON_SQLITE
async def test_without_its_store_process_a_front_is_unready_and_refuses_soon(
    parent: Process, poster: Client, path: Path
) -> None:
    async with taken_from(parent, SqliteStorage(path)):

        async def unready() -> bool:
            status, readiness = await poster.readiness(parent.url)
            return status == 503 and bool(readiness["faults"])

        await eventually(unready)
        assert await poster.post(parent.url) == 503

    async def accepted_again() -> bool:
        return await poster.post(parent.url) == 200

    await eventually(accepted_again)
