"""Inngest's own clients, unchanged, send over an outage of Inngest and a kill of the service."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
import pytest

from inngest_outbox.dev.fake_inngest.server import FakeInngest
from tests.support.fleet import Process, environment, running
from tests.support.free_port import free_port
from tests.support.sdk_senders import (
    Sender,
    javascript_command,
    javascript_sdk,
    python_command,
    sender,
)
from tests.support.storage import eventually

KEY = "a-key-of-the-tests-only"
# What a client still tries again by itself, after the service is back.
LAST_TRY_SECONDS = 15.0
FEW, MANY = 150, 10_000
SHORT_OUTAGE, LONG_OUTAGE = 0.0, 60.0

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def sdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return javascript_sdk(tmp_path_factory.mktemp("sdk"))


@pytest.mark.slow
async def test_every_id_that_a_client_got_is_found_here_and_in_inngest(
    tmp_path: Path, sdk: Path, inngest_api: FakeInngest
) -> None:
    await outage_and_kill(tmp_path, sdk, inngest_api, FEW, SHORT_OUTAGE)


@pytest.mark.soak
@pytest.mark.timeout(1200)
async def test_ten_thousand_each_over_an_outage_of_a_minute(
    tmp_path: Path, sdk: Path, inngest_api: FakeInngest
) -> None:
    await outage_and_kill(tmp_path, sdk, inngest_api, MANY, LONG_OUTAGE)


async def outage_and_kill(
    folder: Path, sdk: Path, inngest: FakeInngest, count: int, outage_seconds: float
) -> None:
    port = free_port()
    settings = environment(
        f"sqlite:///{folder / 'outbox.db'}",
        inngest.url,
        PORT=str(port),
        OUTBOX_EVENT_KEYS=f"sdk:{KEY}",
    )
    url = f"http://127.0.0.1:{port}"
    async with contextlib.AsyncExitStack() as stack:
        service = await stack.enter_async_context(running("serve", environment=settings))
        clients = await stack.enter_async_context(senders(url, sdk, count))
        await each_sent(clients, count // 5)
        await inngest.close()
        began = time.monotonic()
        await each_sent(clients, count // 2)
        killed_at = time.time()
        service.kill()
        await service.ended()
        service = await stack.enter_async_context(running("serve", environment=settings))
        back_at = time.time()
        await each_sent(clients, count * 3 // 4)
        await asyncio.sleep(max(0.0, began + outage_seconds - time.monotonic()))
        await inngest.start()
        await each_sent(clients, count)
        await check(clients, service, inngest, (killed_at, back_at))


@contextlib.asynccontextmanager
async def senders(url: str, sdk: Path, count: int) -> AsyncIterator[list[Sender]]:
    given = {"INNGEST_EVENT_API_BASE_URL": url, "INNGEST_EVENT_KEY": KEY}
    async with (
        sender(javascript_command(count, 4), sdk, given) as javascript,
        sender(python_command(count, 4), sdk, {**given, "INNGEST_DEV": "0"}) as python,
    ):
        yield [javascript, python]


async def each_sent(clients: Sequence[Sender], count: int) -> None:
    await eventually(
        lambda: min(len(one.answers) for one in clients),
        lambda found: found >= count,
        within_seconds=600,
    )


async def check(
    clients: Sequence[Sender], service: Process, inngest: FakeInngest, down: tuple[float, float]
) -> None:
    ids = [one for client in clients for one in client.ids]
    errors = [one for client in clients for one in client.errors]
    for error in errors:
        assert error["began"] <= down[1], error
        assert down[0] <= error["ended"] <= down[1] + LAST_TRY_SECONDS, error
    assert len(set(ids)) == len(ids) == sum(len(one.answers) for one in clients) - len(errors)
    assert (
        await eventually(
            lambda: {one for one in ids if inngest.store.find(one) is None},
            lambda found: not found,
            within_seconds=120,
        )
        == set()
    )
    found = await found_here(service.url, ids)
    assert found == len(ids)
    print(f"\n{len(ids)} ids returned, all found here and in Inngest; {len(errors)} errors")


async def found_here(url: str, ids: Sequence[str]) -> int:
    """How many of the events can be asked for by the ids that were returned."""
    waiting, found = iter(ids), 0
    headers = {"Authorization": f"Bearer {KEY}"}

    async def ask(http: aiohttp.ClientSession) -> None:
        nonlocal found
        for one in waiting:
            async with http.get(f"{url}/api/events/{one}", headers=headers) as answer:
                found += json.loads(await answer.read()).get("inngestId") == one

    async with aiohttp.ClientSession() as http:
        await asyncio.gather(*(ask(http) for _ in range(8)))
    return found
