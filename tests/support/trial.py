"""A trial: one outbox under load while something goes wrong, and what became of what was accepted.

The load posts to one address over every restart of the service. The verdict compares what was
answered with 200 with what arrived at the fake Inngest and with the rows of the file.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from inngest_outbox.dev.fake_inngest.server import FakeInngest
from tests.support.beside import beside
from tests.support.fleet import Process, environment, running
from tests.support.free_port import free_port
from tests.support.storage import eventually

_POSTERS = 8
_PACE_SECONDS = 0.02  # else a load takes all the processor that a wait leaves


@dataclass(frozen=True, slots=True)
class Verdict:
    """Counts of events; `slowest_post_seconds` of those that were answered."""

    name: str
    accepted: int
    lost: int
    sent_twice: int
    dead: int
    refused: int
    recovery_seconds: float
    slowest_post_seconds: float

    def check(self) -> None:
        """Nothing lost, nothing dead."""
        assert self.accepted, self
        assert (self.lost, self.dead) == (0, 0), self


@dataclass
class Load:
    """Posts until it is stopped, and remembers the answers."""

    url: str
    accepted: dict[str, str] = field(default_factory=dict)
    refused: list[tuple[int, str, str | None]] = field(default_factory=list)
    broken: int = 0
    slowest_seconds: float = 0.0
    poison_share: float = 0.0
    name: str = "example"

    @contextlib.asynccontextmanager
    async def running(self, posters: int = _POSTERS) -> AsyncIterator[None]:
        async with beside(*map(self._post, range(posters))):
            yield

    async def _post(self, number: int) -> None:
        jar = aiohttp.CookieJar(unsafe=True)
        timeout = aiohttp.ClientTimeout(total=15)
        async with aiohttp.ClientSession(cookie_jar=jar, timeout=timeout) as http:
            while True:
                try:
                    await self._once(http, number)
                except (aiohttp.ClientError, TimeoutError):
                    self.broken += 1
                await asyncio.sleep(_PACE_SECONDS)

    async def _once(self, http: aiohttp.ClientSession, number: int) -> None:
        if not len(http.cookie_jar):
            user = {"email": "ada@example.com", "id": f"u-{number}"}
            async with http.post(f"{self.url}/auth/dev-login", json=user) as answer:
                if answer.status != 200:  # on a busy machine the outbox may not answer in time
                    await asyncio.sleep(0.02)
                    return
        began = time.monotonic()
        poisoned = random.random() < self.poison_share
        name = f"{'poison' if poisoned else self.name}-{number}-{len(self.accepted)}"
        async with http.post(f"{self.url}/api/route", json={"documentName": name}) as answer:
            body = await answer.json()
        self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
        if answer.status == 200:
            self.accepted[body["eventId"]] = name
        else:
            self.refused.append((answer.status, body["code"], answer.headers.get("Retry-After")))

    async def takes(self, count: int) -> None:
        """Wait until so many more were accepted."""
        wanted = len(self.accepted) + count
        await eventually(lambda: len(self.accepted) >= wanted)


@dataclass
class Trial:
    """`path` is the outbox, `inngest` what the service sends to, by way of `sends_to`."""

    path: Path
    inngest: FakeInngest
    sends_to: str
    load: Load
    settings: dict[str, str]
    service: Process | None = None

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Process]:
        async with running("serve", environment=self.settings) as service:
            self.service = service
            yield service

    async def drained(self) -> float:
        """Wait until all that was accepted has arrived; how long that took."""
        began = time.monotonic()
        ids = list(self.load.accepted)
        ledger = self.inngest.ledger
        await eventually(lambda: all(ledger.times(one) for one in ids))
        return time.monotonic() - began

    async def settled(self) -> None:
        """Wait until the service knows that nothing is left to deliver."""
        async with aiohttp.ClientSession() as http:

            async def undelivered() -> int:
                async with http.get(f"{self.load.url}/readyz") as answer:
                    count: int = (await answer.json())["detail"]["undelivered"]
                    return count

            await eventually(undelivered, lambda count: count == 0)

    def verdict(self, name: str, recovery_seconds: float, dead: int = 0) -> Verdict:
        """After `drained`."""
        ledger = self.inngest.ledger
        times = [ledger.times(one) for one in self.load.accepted]
        return Verdict(
            name,
            accepted=len(times),
            lost=times.count(0),
            sent_twice=sum(one > 1 for one in times),
            dead=dead,
            refused=len(self.load.refused),
            recovery_seconds=recovery_seconds,
            slowest_post_seconds=self.load.slowest_seconds,
        )

    def rows(self) -> dict[str, int]:
        """How many rows are in each state, after a check that the file is whole."""
        with self._reading() as file:
            assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            astray = file.execute(
                "SELECT count(*) FROM outbox WHERE (seq IN (SELECT seq FROM outbox_ready))"
                " + (seq IN (SELECT seq FROM outbox_claims))"
                " + (seq IN (SELECT seq FROM outbox_sent))"
                " + (seq IN (SELECT seq FROM outbox_done)) <> 1"
            ).fetchall()
            orphans = file.execute(
                "SELECT count(*) FROM (SELECT seq FROM outbox_ready"
                " UNION ALL SELECT seq FROM outbox_claims UNION ALL SELECT seq FROM outbox_sent"
                " UNION ALL SELECT seq FROM outbox_done) WHERE seq NOT IN (SELECT seq FROM outbox)"
            ).fetchall()
            assert (astray, orphans) == ([(0,)], [(0,)])
            stored = {one for (one,) in file.execute("SELECT event_id FROM outbox")}
            assert set(self.load.accepted) <= stored
            wrong = file.execute(
                "SELECT count(*) FROM outbox WHERE json_extract(payload, '$.id') <> event_id"
            ).fetchall()
            assert wrong == [(0,)]
            [counts] = file.execute(
                "SELECT (SELECT count(*) FROM outbox_ready) + (SELECT count(*) FROM outbox_claims)"
                " + (SELECT count(*) FROM outbox_sent),"
                " (SELECT count(*) FROM outbox_done WHERE dead = 0),"
                " (SELECT count(*) FROM outbox_done WHERE dead = 1)"
            ).fetchall()
        return dict(zip(("pending", "delivered", "dead"), counts, strict=True))

    def ids(self, name: str) -> set[str]:
        """The events in the file of documents named `name…`, answered or not."""
        return self._ids(
            "SELECT event_id FROM outbox"
            " WHERE json_extract(payload, '$.data.documentName') LIKE ? || '%'",
            name,
        )

    def dead_ids(self) -> set[str]:
        """The events in the file that are dead."""
        return self._ids("SELECT event_id FROM outbox JOIN outbox_done USING (seq) WHERE dead = 1")

    def _reading(self) -> contextlib.closing[sqlite3.Connection]:
        """One that may write would copy the log of a killed service as it closes, and remove it."""
        return contextlib.closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True))

    def _ids(self, statement: str, *values: str) -> set[str]:
        with self._reading() as file:
            return {one for (one,) in file.execute(statement, values)}


@contextlib.asynccontextmanager
async def trial(
    path: Path, *, sends_to: str | None = None, inngest: FakeInngest | None = None, **changes: str
) -> AsyncIterator[Trial]:
    """A trial on the outbox at `path`; start the service with `serving`, the load with `load`."""
    async with contextlib.AsyncExitStack() as stack:
        api = inngest or await stack.enter_async_context(FakeInngest())
        port = free_port()
        target = sends_to or api.url
        changes = {"OUTBOX_SEND_TIMEOUT": "1s", **changes}
        settings = environment(f"sqlite:///{path}", target, PORT=str(port), **changes)
        yield Trial(path, api, target, Load(f"http://127.0.0.1:{port}"), settings)


_ROW = "{:<28}" + " {:>10}" * 7


def table(verdicts: list[Verdict]) -> str:
    """The verdicts for people."""
    names = ("accepted", "lost", "twice", "dead", "refused", "recovery s", "slowest s")
    rows = [
        _ROW.format(
            *(one.name, one.accepted, one.lost, one.sent_twice, one.dead, one.refused),
            f"{one.recovery_seconds:.1f}",
            f"{one.slowest_post_seconds:.2f}",
        )
        for one in verdicts
    ]
    return "\n".join((_ROW.format("scenario", *names), *rows))
