"""One of the processes on PostgreSQL asks Inngest for all; another does soon after it is gone."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from inngest_outbox.dev.fake_inngest.server import FakeInngest, FakeOptions
from tests.support.beside import beside
from tests.support.confirmed_delivery import SIGNING_KEY, self_hosted_service
from tests.support.fleet import Client, Process, client, running
from tests.support.outbox_command import outbox_json
from tests.support.storage import eventually
from tests.support.tcp_proxy import TcpProxy

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

PROCESSES = 3
FAULTS = (signal.SIGKILL, signal.SIGSTOP, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL)
STORE_RATE = 500
POSTERS = 3
POST_SECONDS = 0.05
STOPPED_SECONDS = 25.0
HANDOVER_SECONDS = 20.0  # 10 of the turn, up to 5 until the next look, and a busy machine's
BOTH_SECONDS = 3


@dataclass
class Questions:
    """When each process asked. A process is known by the port at which it reaches Inngest."""

    asked: list[tuple[float, int]] = field(default_factory=list)

    @web.middleware
    async def note(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == "GET" and request.path.startswith("/v1/events"):
            self.asked.append((time.monotonic(), int(request.host.rpartition(":")[2])))
        return await handler(request)

    def since(self, began: float) -> list[tuple[float, int]]:
        return [one for one in self.asked if one[0] >= began]

    def longest_by_two(self) -> int:
        """The most seconds in a row in which more than one process asked."""
        by_second: dict[int, set[int]] = {}
        for at, port in self.asked:
            by_second.setdefault(int(at), set()).add(port)
        seconds = range(min(by_second), max(by_second) + 1)
        both = [len(by_second.get(one, ())) > 1 for one in seconds]
        return max(
            (len(list(run)) for is_both, run in itertools.groupby(both) if is_both), default=0
        )


@dataclass
class Member:
    """One service process, which can be replaced by a new one at the same port to Inngest."""

    url: str
    port: int
    process: Process | None = None
    stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def start(self) -> None:
        settings = self_hosted_service(self.url, f"http://127.0.0.1:{self.port}")
        serving = running("serve", environment=settings)
        self.process = await self.stack.enter_async_context(serving)

    async def fail(self, number: signal.Signals) -> None:
        """Signal the process; it is back, or has been replaced, at the end."""
        assert self.process
        process, self.process = self.process, None
        process.process.send_signal(number)
        if number is signal.SIGSTOP:
            await asyncio.sleep(STOPPED_SECONDS)
            process.process.send_signal(signal.SIGCONT)
            self.process = process
            return
        await process.ended()
        await asyncio.sleep(STOPPED_SECONDS)
        await self.start()


class Storing(FakeInngest):
    """Stores behind its answers, and notes who asks."""

    def __init__(self) -> None:
        super().__init__(options=FakeOptions(signing_key=SIGNING_KEY, store_rate=STORE_RATE))
        self.questions = Questions()

    def build_app(self) -> web.Application:
        app = super().build_app()
        app.middlewares.append(self.questions.note)
        return app


@contextlib.asynccontextmanager
async def members(url: str, inngest: FakeInngest) -> AsyncIterator[list[Member]]:
    async with contextlib.AsyncExitStack() as stack:
        found = []
        for _ in range(PROCESSES):
            proxy = await stack.enter_async_context(TcpProxy(int(inngest.url.rpartition(":")[2])))
            found.append(Member(url, proxy.port))
            await stack.enter_async_context(found[-1].stack)
            await found[-1].start()
        yield found


async def test_another_process_asks_when_the_one_that_asked_is_gone(postgres_url: str) -> None:
    async with Storing() as inngest, client() as poster, members(postgres_url, inngest) as all_of:
        assert all_of[0].process
        await poster.sign_in(all_of[0].process.url)
        async with beside(*(post(poster, all_of) for _ in range(POSTERS))):
            waits = [await handover(number, all_of, inngest.questions) for number in FAULTS]
        await delivered(postgres_url)
        stored = set(inngest.store.ids)
    told = ", ".join(
        f"{number.name} {wait:.1f} s" for number, wait in zip(FAULTS, waits, strict=True)
    )
    print(
        f"\nanother asks after {told}; asked by two for {inngest.questions.longest_by_two()} s at "
        f"most; {len(poster.accepted)} accepted, {poster.broken} broken, all held"
    )
    assert set(poster.accepted) <= stored
    assert max(waits) <= HANDOVER_SECONDS
    assert inngest.questions.longest_by_two() <= BOTH_SECONDS


async def handover(number: signal.Signals, all_of: list[Member], questions: Questions) -> float:
    """The seconds from a fault of the process that asks until another asks."""
    await eventually(lambda: questions.since(time.monotonic() - 1))
    _, port = questions.asked[-1]
    [asker] = [one for one in all_of if one.port == port]
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asker.fail(number))
        at = await eventually(
            lambda: next((at for at, one in questions.since(began) if one != port), None),
            within_seconds=2 * HANDOVER_SECONDS,
        )
        assert at is not None
    return at - began


async def post(poster: Client, all_of: list[Member]) -> None:
    for member in itertools.cycle(all_of):
        if member.process:
            await poster.post(member.process.url)
        await asyncio.sleep(POST_SECONDS)


async def delivered(url: str) -> None:
    async def nothing_waits() -> bool:
        stats = await outbox_json(url, "stats")
        return not any(stats[state] for state in ("pending", "delivering", "sent"))

    await eventually(nothing_waits, within_seconds=120)
