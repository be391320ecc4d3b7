"""The event endpoints over a real SQLite outbox, with runs that a test makes up."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from aiohttp import web

from inngest_outbox.console.operations.search import Search, SearchPolicy
from inngest_outbox.errors import InngestApiError
from inngest_outbox.identity.user import User
from inngest_outbox.inngest.runs import EventRun
from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.outbox.event import Event
from inngest_outbox.outbox.model import Filter, Row
from inngest_outbox.outbox.row_lookup import RowLookup
from inngest_outbox.outbox.sqlite.store import open_sqlite_outbox
from inngest_outbox.supervisor import run_supervisor
from inngest_outbox.web.events.event_stream import EventStream
from inngest_outbox.web.events.events import EventAccess, Events
from inngest_outbox.web.events.followed_event import FollowPolicy
from inngest_outbox.web.events.follower import EventFollower
from inngest_outbox.web.events.own_events import OwnEvents
from inngest_outbox.web.events.run_asker import RunAsker
from inngest_outbox.web.server.middleware import error_middleware
from tests.support.storage import Outbox, eventually

QUICK = FollowPolicy(
    look_seconds=0.02,
    ask_seconds=0.02,
    trouble_seconds=0.02,
    beat_seconds=0.05,
    grace_seconds=0.0,
    output_seconds=0.1,
)


class MadeUpRuns:
    """Answers what `runs` holds, None as an outage; counts what it is asked."""

    def __init__(self) -> None:
        self.runs_of: dict[str, Sequence[EventRun]] | None = {}
        self.asked = 0
        self.asked_for = Counter[str]()
        self.environments = set[str | None]()
        self.thorough = 0
        self.used = dict[tuple[str, str], str]()
        self.hanging = False

    async def run_ids(
        self, ulid: str, environment: str | None = None, *, thorough: bool = False
    ) -> Sequence[str]:
        self.asked += 1
        self.environments.add(environment)
        self.thorough += thorough
        if self.hanging:
            await asyncio.Event().wait()
        if self.runs_of is None:
            raise InngestApiError
        return [run.id for run in self.runs_of.get(ulid, ())]

    async def run(self, run_id: str, environment: str | None = None) -> EventRun | None:
        self.asked_for[run_id] += 1
        self.environments.add(environment)
        if self.runs_of is None:
            raise InngestApiError
        known = {run.id: run for runs in self.runs_of.values() for run in runs}
        return known.get(run_id)

    async def used_before(
        self, ulid: str, event_id: str, name: str, environment: str | None = None
    ) -> str | None:
        self.environments.add(environment)
        return self.used.get((name, event_id))


def run(status: str, output: object = None, run_id: str = "01RUN") -> EventRun:
    """A run that has ended, unless its status is RUNNING."""
    ended = None if status == "RUNNING" else "2026-11-24T22:30:21Z"
    return EventRun(run_id, status, "2026-11-24T22:30:19Z", ended, output)


def event(event_id: str = "e-1", user_id: str = "u-1", name: str = "a/b") -> Event:
    owner = User("dev", user_id).owner
    return Event(event_id, name, owner, user_id, 1_795_559_419_447, b"{}")


class WithInngestIds:
    """An outbox whose rows say under which id Inngest has them: `inngest-<id>`.

    While it is `hanging`, searches do not end.
    """

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.append = outbox.intake.append
        self.discard = outbox.repairs.discard
        self.hanging = False

    async def find(self, event_id: str) -> Row | None:
        row = await self.outbox.intake.find(event_id)
        return row and _identified(row)

    async def rows(self, wanted: Filter) -> list[Row]:
        if self.hanging:
            await asyncio.Event().wait()
        return [_identified(row) for row in await self.outbox.inspector.rows(wanted)]

    async def count(self, wanted: Filter) -> int:
        return await self.outbox.inspector.count(wanted)


@dataclass(frozen=True, slots=True)
class Followed:
    app: web.Application
    outbox: Outbox
    follower: EventFollower
    runs: MadeUpRuns
    rows: WithInngestIds


def _page_of(run_id: str, environment: str | None) -> str:
    return f"http://inngest.test/{environment or 'own'}/{run_id}"


@contextlib.asynccontextmanager
async def followed_events(
    folder: Path,
    *,
    with_runs: bool = True,
    policy: FollowPolicy = QUICK,
    searching: SearchPolicy | None = None,
) -> AsyncIterator[Followed]:
    """The endpoints for the user that the headers X-User and X-Issuer name; `kim` is an operator.

    In the end nobody waits.
    """
    limits = {"max_pending": 100, "max_pending_per_user": 100}
    recorder = NullRecorder()
    async with (
        open_sqlite_outbox(folder / "outbox.db", **limits) as outbox,
        run_supervisor(recorder) as supervisor,
    ):
        runs = MadeUpRuns()
        rows = WithInngestIds(outbox)
        asker = RunAsker(runs, _page_of, policy) if with_runs else None
        follower = EventFollower(rows, asker, policy)
        supervisor.watch("following", follower.look)
        supervisor.watch("ending-waits", follower.end_waits)
        if asker:
            supervisor.watch("asking", follower.ask)
        search = Search(rows, outbox.positions, searching)
        access = EventAccess(RowLookup(rows, rows), _user, lambda user: user.id == "kim")
        app = web.Application(middlewares=[error_middleware(recorder)])
        for resource in (
            Events(access, follower),
            EventStream(access, follower),
            OwnEvents(access, search, rows, runs_follow=follower.runs_follow),
        ):
            app.add_routes(resource.routes())
        yield Followed(app, outbox, follower, runs, rows)
        follower.close()
        await eventually(lambda: [follower.followers, *follower._owners] == [0])
        assert [one for one in follower._followed.values() if one.followers or one._waiting] == []


async def _user(request: web.Request) -> User:
    return User(request.headers.get("X-Issuer", "dev"), request.headers.get("X-User", "u-1"))


def _identified(row: Row) -> Row:
    return msgspec.structs.replace(row, inngest_id=f"inngest-{row.id}")
