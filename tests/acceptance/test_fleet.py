"""Several processes on one database under load, killed and cut off: nothing accepted is lost.

The short run is slow; `-m soak` kills deliverers too, whose rows wait for their lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Self

import pytest

from inngest_outbox.dev.fake_inngest.server import FakeInngest
from inngest_outbox.outbox.figures import Stats
from tests.support.beside import beside
from tests.support.fleet import Client, Process, client, environment, running
from tests.support.postgres_server import PostgresServer
from tests.support.storage import PostgresStorage, eventually
from tests.support.tcp_proxy import TcpProxy


class Fleet:
    """Processes that serve one outbox, and a client that posts to those that live."""

    def __init__(self, outbox_url: str, api: FakeInngest, poster: Client) -> None:
        self.outbox_url = outbox_url
        self.api = api
        self.poster = poster
        self.living: list[Process] = []
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def start(self, *command: str, outbox_url: str | None = None) -> Process:
        settings = environment(
            outbox_url or self.outbox_url, self.api.url, OUTBOX_SEND_TIMEOUT="1s"
        )
        ready = "Delivering" if command == ("relay",) else r"Listening on (http://\S+)"
        process = await self._stack.enter_async_context(
            running(*command, environment=settings, ready=ready)
        )
        if process.url:
            await self.poster.sign_in(process.url)
            self.living.append(process)
        return process

    async def kill(self, process: Process) -> None:
        if process in self.living:
            self.living.remove(process)
        process.kill()
        await process.ended()

    @contextlib.asynccontextmanager
    async def under_load(self, *, workers: int = 8) -> AsyncIterator[None]:
        async with beside(*(self._post() for _ in range(workers))):
            yield

    async def more(self, count: int) -> None:
        """Wait until so many more posts were accepted."""
        wanted = len(self.poster.accepted) + count
        await eventually(lambda: len(self.poster.accepted) >= wanted)

    async def all_delivered(self) -> Counter[int]:
        """Wait until everything accepted has arrived; how often, by number of events."""
        await eventually(
            lambda: all(map(self.api.ledger.times, self.poster.accepted)),
        )
        return Counter(self.api.ledger.times(event_id) for event_id in self.poster.accepted)

    async def figures(self) -> Stats:
        """The outbox when nothing is under way any more."""
        async with PostgresStorage(self.outbox_url).open() as outbox:
            return await eventually(
                outbox.inspector.stats,
                lambda stats: stats.pending + stats.delivering == 0,
            )

    async def _post(self) -> None:
        while True:
            await self.poster.post(random.choice(self.living).url)
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def fleet_of(
    url: str, api: FakeInngest, commands: Sequence[Sequence[str]]
) -> AsyncIterator[Fleet]:
    async with client() as poster, Fleet(url, api, poster) as fleet:
        for command in commands:
            await fleet.start(*command)
        yield fleet


@pytest.mark.slow
async def test_a_killed_process_and_a_crashed_database_lose_nothing(
    crashable: PostgresServer, crashable_url: str, inngest_api: FakeInngest
) -> None:
    commands = [("serve",), ("serve", "--no-relay"), ("serve", "--no-relay")]
    async with fleet_of(crashable_url, inngest_api, commands) as fleet:
        async with fleet.under_load(workers=4):
            await fleet.more(50)
            await fleet.kill(fleet.living[-1])
            await fleet.more(50)
            await asyncio.to_thread(crashable.crash)
            status = await fleet.poster.post(fleet.living[-1].url)
            await asyncio.to_thread(crashable.start)
            await fleet.more(50)
        assert status == 503
        await fleet.all_delivered()
        stats = await fleet.figures()
        assert stats.dead == 0
        assert stats.delivered >= len(fleet.poster.accepted)
        assert set(fleet.poster.refused) <= {503}


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("count", [2, 4])
async def test_killed_deliverers_crashes_and_black_holes_lose_nothing(
    crashable: PostgresServer, crashable_url: str, inngest_api: FakeInngest, count: int
) -> None:
    async with TcpProxy(crashable.socket) as proxy:
        through = f"postgresql://outbox@127.0.0.1:{proxy.port}/outbox"
        async with fleet_of(crashable_url, inngest_api, [("serve",)] * (count - 1)) as fleet:
            await fleet.start("serve", outbox_url=through)
            async with fleet.under_load():
                for _ in range(3):
                    await fleet.more(300)
                    await fleet.kill(fleet.living[0])
                    await fleet.start("serve")
                    await fleet.more(300)
                    proxy.swallow()
                    await asyncio.sleep(3)
                    proxy.heal()
                    await fleet.more(300)
                    await asyncio.to_thread(crashable.crash)
                    await asyncio.to_thread(crashable.start)
                await fleet.more(300)
            arrived = await fleet.all_delivered()
            stats = await fleet.figures()
            accepted = len(fleet.poster.accepted)
            repeated = sum(number for times, number in arrived.items() if times > 1)
            print(
                f"\n{count} processes: accepted {accepted}, lost 0, dead {stats.dead}, "
                f"sent more than once {repeated}, refused {Counter(fleet.poster.refused)}, "
                f"broken {fleet.poster.broken}"
            )
            assert stats.dead == 0
            assert stats.delivered >= accepted
