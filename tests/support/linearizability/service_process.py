"""The processes of a history: a service, in some lives with a relay, and a terminal beside it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
from collections import deque
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from inngest_outbox.bootstrap.operations import open_reading, open_writing
from inngest_outbox.bootstrap.stores import Outbox, open_served_outbox
from inngest_outbox.bootstrap.web_part import run_front_process, run_web
from inngest_outbox.config.settings import Settings
from inngest_outbox.console.operations.sampler import Sampler
from inngest_outbox.errors import OutboxError
from inngest_outbox.observe.metrics import PrometheusRecorder
from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.outbox.event import Event
from inngest_outbox.outbox.keys import Keys, Receipt
from inngest_outbox.outbox.model import Filter, State
from inngest_outbox.outbox.sqlite.file.lock import writer_of
from inngest_outbox.outbox.sqlite.store import SqliteOutbox
from inngest_outbox.supervisor import run_supervisor
from tests.support.fleet import client, environment
from tests.support.linearizability.actors import Looker, Operator
from tests.support.linearizability.claim_record import record_claims
from tests.support.linearizability.clients import Browser, Sender
from tests.support.linearizability.page_record import record_pages
from tests.support.linearizability.record import Recorder
from tests.support.linearizability.relay_record import recorded_relay
from tests.support.remote_storage import status_of
from tests.support.storage import eventually

# The service's own relay does not run: a history has senders, and a relay whose calls are recorded.
NOWHERE = "http://127.0.0.1:9"
KNOWN = 24
FRONT_BROWSERS = 2  # a post is under way when the store dies
RELAYED_SHARE = 0.5


def serve(url: str, log: Path, name: str, seed: str, ready: Path) -> None:
    """A service, with senders, a browser and an operator in its process."""
    asyncio.run(_serve(url, Recorder(log, name), random.Random(seed), ready))


def look(url: str, log: Path, name: str, seed: str) -> None:
    """An operator at a terminal, as the `outbox` commands do it."""
    asyncio.run(_look(url, Recorder(log, name), random.Random(seed)))


def front(url: str, log: Path, name: str, seed: str, ready: Path) -> None:
    """A front process of the service that has the file, with a browser."""
    asyncio.run(_front(url, Recorder(log, name), random.Random(seed), ready))


async def _serve(url: str, recorder: Recorder, chance: random.Random, ready: Path) -> None:
    settings = Settings.load(environment(url, NOWHERE))
    known = deque[str](maxlen=KNOWN)
    async with contextlib.AsyncExitStack() as stack:
        outbox = await _opened(settings, stack, recorder)
        _note_numbers(outbox, recorder)
        record_pages(outbox.repairs, recorder)
        api = await stack.enter_async_context(_web(settings, outbox))
        http = await stack.enter_async_context(_signed_in(api))
        has_relay = chance.random() < RELAYED_SHARE
        if has_relay:
            await stack.enter_async_context(recorded_relay(outbox, recorder, chance))
        ready.touch()  # noqa: ASYNC240
        senders = [Sender(chance, recorder, known, outbox, delivers=not has_relay)]
        senders.append(Sender(chance, recorder, known, outbox))
        operator = Operator(chance, recorder, known, outbox.inspector, outbox.repairs)
        looker = Looker(chance, recorder, known, outbox.inspector)
        browser = Browser(chance, recorder, known, http, api)
        await asyncio.gather(*(one.run() for one in (*senders, operator, looker, browser)))


async def _front(url: str, recorder: Recorder, chance: random.Random, ready: Path) -> None:
    settings = Settings.load(environment(url, NOWHERE))
    store = writer_of(Path(settings.sqlite_path or "")) or {}
    async with (
        run_front_process(settings, str(store["socket"])) as (app, _),
        _listening(app) as api,
        _signed_in(api) as http,
    ):
        ready.touch()  # noqa: ASYNC240
        known = deque[str](maxlen=KNOWN)
        browsers = [Browser(chance, recorder, known, http, api) for _ in range(FRONT_BROWSERS)]
        await asyncio.gather(*(one.run() for one in browsers))


async def _opened(
    settings: Settings, stack: contextlib.AsyncExitStack, recorder: Recorder
) -> Outbox:
    outbox = None
    while outbox is None:
        opening = open_served_outbox(settings, NullRecorder(), status=status_of)
        enter = functools.partial(stack.enter_async_context, opening)
        outbox = await recorder.call("start", None, enter, lambda _: None)
    record_claims(outbox, recorder)
    return outbox


def _note_numbers(outbox: Outbox, recorder: Recorder) -> None:
    """Note the numbers of posts over HTTP, which the API does not tell."""
    start, append = outbox.intake.start, outbox.intake.append

    async def appending(event: Event, **named: Any) -> Receipt:
        receipt = await append(event, **named)
        recorder.note("numbered", [(receipt.event_id, receipt.seq)])
        return receipt

    def noting(events: Sequence[Event], keys: Keys) -> asyncio.Future[Sequence[Receipt]]:
        begun = start(events, keys)
        begun.add_done_callback(noted)
        return begun

    def noted(ended: asyncio.Future[Sequence[Receipt]]) -> None:
        if not ended.cancelled() and not ended.exception():
            recorder.note("numbered", [(one.event_id, one.seq) for one in ended.result()])

    if isinstance(outbox, SqliteOutbox):  # a front's posts come in by it, too
        outbox.intake.start = noting  # type: ignore[method-assign]
    else:
        outbox.intake.append = appending  # type: ignore[method-assign]


async def _look(url: str, recorder: Recorder, chance: random.Random) -> None:
    known = deque[str](maxlen=KNOWN)
    while True:
        with contextlib.suppress(OutboxError):
            async with open_reading(url) as reading, open_writing(url) as writing:
                repairs = writing.repairs
                record_pages(repairs, recorder)
                await Operator(chance, recorder, known, reading.inspector, repairs).run()
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def _web(settings: Settings, outbox: Outbox) -> AsyncIterator[str]:
    """The HTTP API on a socket; its address."""
    recorder = PrometheusRecorder()
    async with (
        run_supervisor(recorder) as supervisor,
        run_web(
            settings,
            outbox,
            lambda: status_of(outbox),
            recorder=recorder,
            supervisor=supervisor,
            sampler=Sampler(outbox.inspector, recorder),
            tracing=None,
        ) as app,
        _listening(app) as api,
    ):
        yield api


@contextlib.asynccontextmanager
async def _listening(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"


@contextlib.asynccontextmanager
async def _signed_in(api: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with client() as poster:
        await poster.sign_in(api)
        yield poster.session


def end(url: str, log: Path, name: str) -> None:
    """The last process: looks at all rows, delivers what waits, and looks again."""
    asyncio.run(_end(url, Recorder(log, name)))


async def _end(url: str, recorder: Recorder) -> None:
    settings = Settings.load(environment(url, NOWHERE))
    chance, known = random.Random(0), deque[str]()
    async with contextlib.AsyncExitStack() as stack:
        outbox = await _opened(settings, stack, recorder)
        looker = Looker(chance, recorder, known, outbox.inspector)
        sender = Sender(chance, recorder, known, outbox)
        await looker.everything()
        while await outbox.inspector.count(Filter(state=State.PENDING)):
            await sender.deliver()
        await looker.everything()
        await _counts_agree(outbox)


async def _counts_agree(outbox: Outbox) -> None:
    """Wait until the limits count what is there: claims of killed processes, on PostgreSQL."""
    claimed = await outbox.inspector.count(Filter(state=State.DELIVERING, limit=100_000))
    await eventually(lambda: outbox.undelivered, lambda found: found == claimed)
