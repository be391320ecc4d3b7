"""Front processes under upgrades: nothing accepted is lost, nobody waits for long."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.fill import fill
from inngest_outbox.config.outbox_url import sqlite_file
from inngest_outbox.dev.fake_inngest.server import FakeInngest
from tests.support.beside import beside
from tests.support.fleet import Client, client, environment, running
from tests.support.front_processes import delivered
from tests.support.installed import add_migration, install
from tests.support.outbox_command import outbox_command
from tests.support.postgres_rows import append_rows
from tests.support.storage import PATIENCE_SECONDS

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

HTTP_OK = 200
RESTS = [15.0, *[8.0] * 7] * 8  # the most seconds that a client's connection has nothing to do
UPGRADES = 30
ROWS = 300_000
MIGRATIONS = {
    "SQLite": "CREATE INDEX outbox_by_name ON outbox (name, user_id, accepted_at_ms);",
    "PostgreSQL": "CREATE INDEX events_by_name ON outbox.events (name, user_id, accepted_at_ms);",
}


class Posters:
    """Clients that post, and the longest time that a post took."""

    def __init__(self, clients: list[Client]) -> None:
        self._clients = clients
        self._chance = random.Random(1)
        self.longest = 0.0

    @property
    def accepted(self) -> list[str]:
        return [event_id for one in self._clients for event_id in one.accepted]

    @property
    def statuses(self) -> list[int]:
        """Those of posts that failed; 0 is a connection that broke."""
        refused = [status for one in self._clients for status in one.refused]
        return [*refused, *(0 for one in self._clients for _ in range(one.broken))]

    async def post(self, poster: Client, url: str, most_rest: float) -> None:
        while True:
            began = time.monotonic()
            status = await poster.post(url)
            self.longest = max(self.longest, time.monotonic() - began)
            rest = self._chance.uniform(0, most_rest)
            await asyncio.sleep(rest if status == HTTP_OK else max(rest, 0.05))


@contextlib.asynccontextmanager
async def posting(url: str, most_rests: Sequence[float]) -> AsyncIterator[Posters]:
    """A client for each of them, which keeps its connection and rests so long between two posts."""
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client()) for _ in most_rests]
        for one in clients:
            await one.sign_in(url)
        posters = Posters(clients)
        pairs = zip(clients, most_rests, strict=True)
        async with beside(*(posters.post(one, url, rest) for one, rest in pairs)):
            yield posters


def settings_of(tmp_path: Path, api: FakeInngest, **changes: str) -> dict[str, str]:
    return environment(
        f"sqlite:///{tmp_path / 'outbox.db'}", api.url, WEB_CONCURRENCY="2", **changes
    )


@dataclass(frozen=True)
class Version:
    """A version that is installed, and the outcome of its upgrade."""

    name: str
    install: Callable[[Path, int], None]
    serves: bool


def _broken(module: str, more: str = "") -> Callable[[Path, int], None]:
    """A version whose `module` does not load, or is changed by `more`."""

    def install_it(program: Path, _: int) -> None:
        path = program / "service" / "inngest_outbox" / module
        text = path.read_text()
        path.write_text(f"{text}\n\n{more}\n" if more else f"import no_such_module\n{text}")

    return install_it


def _migrating(statements: str) -> Callable[[Path, int], None]:
    def install_it(program: Path, number: int) -> None:
        add_migration(program, statements, number)

    return install_it


VERSIONS = (
    Version("the same", lambda *_: None, serves=True),
    Version("migrates", _migrating("SELECT 1;"), serves=True),
    Version("its migration fails", _migrating("ALTER TABLE absent ADD COLUMN a;"), serves=False),
    Version("its store does not load", _broken("relay/relay.py"), serves=False),
    Version("its front does not load", _broken("bootstrap/web.py"), serves=False),
    Version(
        "its store can't write",
        _broken(
            "outbox/sqlite/health.py",
            "SqliteHealth.failure = property(lambda _: 'The disk is full.')",
        ),
        serves=False,
    ),
)


async def test_thirty_upgrades_of_all_kinds_refuse_no_post_and_cut_no_connection(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    program, migrations = tmp_path / "program", 0
    variables = install(program)
    outcomes = Counter[str]()
    async with running("serve", environment=settings_of(tmp_path, inngest_api, **variables)) as it:
        async with posting(it.url, RESTS) as posters:
            for number in range(UPGRADES):
                version = VERSIONS[number % len(VERSIONS)]
                kept = tmp_path / f"before-{number}"
                await asyncio.to_thread(shutil.copytree, program, kept)
                migrations += version.name == "migrates"
                version.install(program, migrations + (not version.serves))
                code, _, err = await outbox_command(tmp_path / "outbox.db", "upgrade")
                assert (code == 0) is version.serves, err
                assert version.serves or err.startswith("outbox: The old version continues.")
                if not version.serves:
                    await asyncio.to_thread(shutil.rmtree, program)
                    await asyncio.to_thread(kept.rename, program)
                outcomes[version.name] += 1
        await delivered(inngest_api, posters.accepted, within_seconds=PATIENCE_SECONDS)
        told = ", ".join(f"{count} {name}" for name, count in outcomes.items())
        print(
            f"\n{UPGRADES} upgrades ({told}) under {len(RESTS)} kept connections: "
            f"{len(posters.accepted)} posts, {len(posters.statuses) - posters.statuses.count(0)} "
            f"refused, {posters.statuses.count(0)} cut, the longest answer {posters.longest:.2f} s"
        )
        assert posters.statuses == []
        assert await it.stop() == 0


@pytest.mark.parametrize("store_url", ["sqlite", "postgres"], indirect=True)
async def test_a_migration_of_many_rows_refuses_no_post(
    tmp_path: Path, inngest_api: FakeInngest, store_url: str
) -> None:
    program = tmp_path / "program"
    file = sqlite_file(store_url)
    await asyncio.to_thread(
        *((append_rows, store_url, ROWS) if file is None else (fill, Path(file), ROWS))
    )
    settings = settings_of(
        tmp_path,
        inngest_api,
        OUTBOX_URL=store_url,
        INNGEST_DEV="http://127.0.0.1:1",
        **install(program),
    )
    async with running("serve", environment=settings) as parent:
        async with posting(parent.url, [0.0] * 16) as posters:
            kind = "PostgreSQL" if file is None else "SQLite"
            for number, statements in enumerate(("SELECT 1;", MIGRATIONS[kind]), 1):
                posters.longest = 0.0
                add_migration(program, statements, number)
                parent.process.send_signal(signal.SIGHUP)
                await parent.said("Upgrade: done", times=number)
                said = f"{kind}, {statements} {ROWS:,} rows: the longest answer"
                print(f"\n{said} {posters.longest:.2f} s")
        assert posters.statuses == []
