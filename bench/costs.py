"""The costs of an event that no machine changes: statements, commits, hops, calls and bytes.

A fixed load runs in this process over the real parts, and everything they ask of SQLite, of the
database thread and of Inngest is counted. `baseline.json` holds the counts; a test compares.
`python -m bench.costs` writes it anew, for a change that means to change them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import aiohttp
import msgspec
import structlog
from aiohttp import web

from bench.meter import Costs, metered
from inngest_outbox.bootstrap.service import run_service
from inngest_outbox.config.settings import Settings
from inngest_outbox.dev.fake_inngest.faults import Hang
from inngest_outbox.dev.fake_inngest.server import FakeInngest
from inngest_outbox.identity.user import User
from inngest_outbox.inngest.send_result import SendResult
from inngest_outbox.inngest.sender import InngestSender
from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.outbox.event import Event, encode_event
from inngest_outbox.outbox.keys import IdempotencyKey
from inngest_outbox.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from inngest_outbox.outbox.sqlite.timings import WriterTimings
from inngest_outbox.relay.relay import Relay, RelayLimits

BASELINE = Path(__file__).with_name("baseline.json")
APPENDERS = 64
ROUNDS = 50
ARRAY = 100
BATCH = 500
_PATIENCE_SECONDS = 120.0
_SEND_SECONDS = 60.0  # a busy machine is no trouble of Inngest
# A busy machine's disk is not taken for lost, and no commit is synced for its age alone.
_TIMINGS = WriterTimings(stall_seconds=_PATIENCE_SECONDS, sync_seconds=_PATIENCE_SECONDS)
_TS_MS = 1_795_559_419_447
_USER = User("dev", "u-1", "ada@example.com", "Ada")


class _Data(msgspec.Struct, frozen=True, gc=False):
    documentName: str  # noqa: N815  (as on the wire)


class _Unhurried:
    """The sender, whose answers come only once the relay's next claim stands in the writer.

    Else the two would share a transaction or not, as their timing has it.
    """

    def __init__(self, sender: InngestSender, outbox: SqliteOutbox) -> None:
        self._sender = sender
        self._outbox = outbox

    async def send(self, payloads: bytes, headers: Mapping[str, str] = {}) -> SendResult:
        answer = await self._sender.send(payloads, headers)
        await _until(lambda: _claim_waits(self._outbox))
        return answer


async def accepted_and_drained(folder: Path) -> tuple[Costs, Costs]:
    """64 appenders x 50 with nobody delivering, then a relay that drains what they left."""
    with metered() as meter:
        async with _outbox(folder) as outbox:
            meter.reset()
            await asyncio.gather(*(_append_all(outbox) for _ in range(APPENDERS)))
            accepted = meter.counts()
            async with FakeInngest() as inngest, _relay(outbox, inngest, senders=1):
                meter.reset()
                drained = await _until_delivered(outbox, inngest, APPENDERS * ROUNDS)
                await _until(lambda: _claim_waits(outbox))
                return accepted, {**meter.counts(), **drained}


async def accepted_in_arrays(folder: Path) -> Costs:
    """8 callers x 10 arrays of 100 events, each with a key, with nobody delivering."""
    with metered() as meter:
        async with _outbox(folder) as outbox:
            meter.reset()
            await asyncio.gather(*(_append_arrays(outbox) for _ in range(8)))
            return meter.counts()


async def flowing(folder: Path) -> Costs:
    """50 rounds of 64 events that are delivered before the next round: a claim always waits."""
    with metered() as meter:
        async with (
            _outbox(folder) as outbox,
            FakeInngest() as inngest,
            _relay(outbox, inngest, senders=4),
        ):
            meter.reset()
            for number in range(1, ROUNDS + 1):
                await _until(lambda: _claim_waits(outbox))
                await asyncio.gather(*(outbox.intake.append(_event()) for _ in range(APPENDERS)))
                sent = await _until_delivered(outbox, inngest, APPENDERS * number)
            await _until(lambda: _claim_waits(outbox))
            return {**meter.counts(), **sent}


async def posted(folder: Path) -> Costs:
    """Posts to the whole service while Inngest hangs, rounded to whole costs of a commit."""
    with metered() as meter:
        async with FakeInngest() as inngest, _service(folder, inngest) as (session, url):
            inngest.faults.add(Hang(), times=None)
            await _post(session, url)
            await _until(lambda: inngest.ledger.request_count)
            meter.reset()
            for _ in range(ROUNDS):
                await asyncio.gather(*(_post(session, url) for _ in range(APPENDERS)))
            counts = Counter(meter.counts())
            counts["calls"] -= APPENDERS * ROUNDS  # the posts themselves
            commits = counts["COMMIT"]
            per_commit = {f"{key} per commit": round(n / commits) for key, n in counts.items()}
            return {key: n for key, n in per_commit.items() if n} | {
                "events per commit, at least 16": int(APPENDERS * ROUNDS / commits >= 16)
            }


async def measure() -> dict[str, Costs]:
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / part for part in ("accept", "flow", "post", "arrays")]
        for folder in folders:
            folder.mkdir()
        accepted, drained = await accepted_and_drained(folders[0])
        return {
            "accept": accepted,
            "accept arrays": await accepted_in_arrays(folders[3]),
            "drain": drained,
            "flow": await flowing(folders[1]),
            "post": await posted(folders[2]),
        }


def differences(before: Mapping[str, Costs], now: Mapping[str, Costs]) -> list[str]:
    """A sentence for each cost that is not what it was."""
    return [
        f"{part}: {key!r} was {before.get(part, {}).get(key, 0)}, is {now[part].get(key, 0)}"
        for part in now
        for key in sorted({*before.get(part, {}), *now[part]})
        if before.get(part, {}).get(key, 0) != now[part].get(key, 0)
    ]


@contextlib.asynccontextmanager
async def _outbox(folder: Path) -> AsyncIterator[SqliteOutbox]:
    async with open_sqlite_outbox(
        folder / "outbox.db", max_pending=100_000, max_pending_per_user=100_000, timings=_TIMINGS
    ) as outbox:
        await outbox.maintenance.fill()  # else it comes between the counted commits
        yield outbox


@contextlib.asynccontextmanager
async def _relay(
    outbox: SqliteOutbox, inngest: FakeInngest, *, senders: int
) -> AsyncIterator[None]:
    async with aiohttp.ClientSession() as session:
        sender = InngestSender(
            session,
            origin=inngest.url,
            key="key",
            fallback_key=None,
            environment=None,
            timeout_seconds=_SEND_SECONDS,
        )
        relay = Relay(
            outbox.queue,
            outbox.delivery,
            _Unhurried(sender, outbox) if senders > 1 else sender,
            NullRecorder(),
            RelayLimits(
                max_events=BATCH,
                max_bytes=1024 * 1024,
                senders=senders,
                send_timeout_seconds=_SEND_SECONDS,
                drain_seconds=10,
            ),
        )
        running = asyncio.create_task(relay.run())
        try:
            yield
        finally:
            await relay.stop()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@contextlib.asynccontextmanager
async def _service(
    folder: Path, inngest: FakeInngest
) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    settings = Settings.load(
        {
            "OUTBOX_URL": f"sqlite:///{folder / 'outbox.db'}",
            "INNGEST_DEV": inngest.url,
            "OUTBOX_SENDERS": "1",
            "SESSION_SECRET": "a-secret-of-the-baseline-only",
            "AWS_S3_REGION": "eu-west-1",
            "AWS_S3_BUCKET": "documents",
        }
    )
    connector = aiohttp.TCPConnector(limit=APPENDERS)
    jar = aiohttp.CookieJar(unsafe=True)
    async with (
        run_service(settings) as service,
        aiohttp.ClientSession(connector=connector, cookie_jar=jar) as session,
    ):
        runner = web.AppRunner(service.app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            body = {"email": "ada@example.com", "id": "u-1"}
            async with session.post(f"{url}/auth/dev-login", json=body) as answer:
                assert answer.status == 200
            yield session, url
        finally:
            inngest.faults.clear()
            await runner.cleanup()


async def _post(session: aiohttp.ClientSession, url: str) -> None:
    async with session.post(f"{url}/api/route", json={"documentName": "example"}) as answer:
        assert answer.status == 200, await answer.text()


async def _append_all(outbox: SqliteOutbox) -> None:
    for _ in range(ROUNDS):
        await outbox.intake.append(_event())


async def _append_arrays(outbox: SqliteOutbox) -> None:
    for _ in range(10):
        events = [_event() for _ in range(ARRAY)]
        keys = [IdempotencyKey(event.id, bytes(32), lifetime_seconds=86_400) for event in events]
        await outbox.intake.append_all(events, keys)


def _event() -> Event:
    return encode_event("documents/aws.index", _Data("example"), _USER, _TS_MS)


async def _until_delivered(outbox: SqliteOutbox, inngest: FakeInngest, count: int) -> Costs:
    await inngest.ledger.wait_for_arrivals(count, timeout_seconds=_PATIENCE_SECONDS)
    await _until(lambda: not outbox.undelivered)
    return {
        "events": inngest.ledger.arrivals,
        "bytes sent": sum(request.body_bytes for request in inngest.ledger.requests),
    }


def _claim_waits(outbox: SqliteOutbox) -> bool:
    """True while the relay's claim stands in the writer, tried and in no transaction."""
    writer = outbox.writer
    return bool(writer._waiting.claims) and not writer.watchdog.group and not writer._try_claims


async def _until(reached: Callable[[], object]) -> None:
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while not reached():  # noqa: ASYNC110  (a fact that nobody announces)
            await asyncio.sleep(0.001)


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    costs = asyncio.run(measure())
    BASELINE.write_text(json.dumps(costs, indent=1) + "\n")
    print(json.dumps(costs, indent=1))


if __name__ == "__main__":
    main()
