"""One process: it is restarted by its supervisor, behind a socket that outlives it."""

from __future__ import annotations

import contextlib
import signal
import socket
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from inngest_outbox.dev.fake_inngest.server import FakeInngest
from inngest_outbox.outbox.schema import migrate
from inngest_outbox.outbox.sqlite.store import open_sqlite_outbox
from tests.support.beside import beside
from tests.support.fleet import Client, client, environment, running
from tests.support.front_processes import all_gone, children_of, delivered, more_accepted
from tests.support.installed import add_migration, install
from tests.support.migrating import ENDLESS, is_migrating
from tests.support.notified import notified
from tests.support.outbox_command import outbox_command
from tests.support.storage import PATIENCE_SECONDS, eventually

FEW = 5
PATIENCE = aiohttp.ClientTimeout(PATIENCE_SECONDS)
PROCESSES = pytest.mark.parametrize("processes", ["1", pytest.param("2", marks=pytest.mark.slow)])


@contextlib.asynccontextmanager
async def posting(poster: Client, url: str) -> AsyncIterator[None]:
    """Posts on new connections, one after the other; at the end all were accepted."""

    async def post() -> None:
        while True:
            assert await poster.post_on_a_new_connection(url) == 200

    async with beside(post(), post()):
        yield


async def test_one_process_is_not_upgraded_and_the_command_says_what_restarts_it(
    tmp_path: Path, short_path: Path, inngest_api: FakeInngest
) -> None:
    outbox = tmp_path / "outbox.db"
    with notified(short_path) as manager:
        url, logs = f"sqlite:///{outbox}", {"LOG_LEVEL": "info", "LOG_FORMAT": "console"}
        told = {**manager.environment, "WATCHDOG_USEC": "3000000000"}  # once in this test
        settings = environment(url, inngest_api.url, **told, **logs)
        address = await refuses_an_upgrade(outbox, settings)
        said = [manager.bound.recv(4096).decode() for _ in range(3)]
        ready = f"READY=1\nSTATUS=Listening on {address}"
        assert said == [ready, "WATCHDOG=1", "STOPPING=1\nSTATUS=Stopping"]


async def refuses_an_upgrade(outbox: Path, settings: dict[str, str]) -> str:
    async with running("serve", environment=settings) as alone, client() as poster:
        await alone.said(", 0 events wait")
        assert alone.lines[0] == f"Listening on {alone.url} in development\n"
        await poster.sign_in(alone.url)
        code, out, err = await outbox_command(outbox, "upgrade")
        assert (code, out) == (2, "")
        assert "`systemctl restart inngest-outbox`. Nothing is changed." in err
        alone.process.send_signal(signal.SIGHUP)
        await alone.said("systemctl restart inngest-outbox")
        assert await poster.post(alone.url) == 200
        assert await alone.stop() == 0
        assert any("[info     ] request " in line for line in alone.lines)
        assert "Stopping: finishing requests and sends under way.\n" in alone.lines
        return alone.url


async def test_a_stop_during_a_start_that_migrates_is_obeyed_and_leaves_no_trace(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    program = tmp_path / "program"
    url = f"sqlite:///{tmp_path / 'outbox.db'}"
    settings = environment(url, inngest_api.url, **install(program))
    migrate(url)
    add_migration(program, ENDLESS)
    for command, processes in (("serve", "1"), ("serve", "2"), ("relay", "1")):
        given = {**settings, "WEB_CONCURRENCY": processes}
        async with running(command, environment=given, ready=None) as migrating:
            await eventually(lambda: is_migrating(url))
            if (command, processes) == ("serve", "1"):
                migrating.process.send_signal(signal.SIGHUP)
                await migrating.said("systemctl restart inngest-outbox")
            assert await migrating.stop() == 0
    add_migration(program, "SELECT 1;")
    async with running("serve", environment=settings) as again:
        assert await again.stop() == 0


@PROCESSES
async def test_a_start_that_may_succeed_later_ends_with_1_and_a_faulty_one_with_2(
    tmp_path: Path, processes: str
) -> None:
    """The unit restarts the service after 1, and not after 2."""
    settings = environment(
        f"sqlite:///{tmp_path / 'outbox.db'}", "http://127.0.0.1:1", WEB_CONCURRENCY=processes
    )
    with socket.create_server(("127.0.0.2", 0)) as taken:
        port = taken.getsockname()[1]
        in_use = {**settings, "HOST": "127.0.0.2", "PORT": str(port)}
        said = f"^can't start: .* in use: http://127.0.0.2:{port}; set HOST or PORT$"
        async with running("serve", environment=in_use, ready=said) as service:
            assert await service.ended() == 1
    away = {**settings, "OUTBOX_URL": "postgresql://127.0.0.1:1/outbox"}
    async with running("serve", environment=away, ready="can't be used: Connection") as service:
        if processes == "1":
            assert await service.ended() == 1
        else:
            await service.said("ended with 1: starting it again")
            assert await service.stop() == 0
    faulty = {**settings, "OUTBOX_SENDERS": "none"}
    async with running("serve", environment=faulty, ready="configuration: ") as service:
        assert await service.ended() == 2
    async with open_sqlite_outbox(tmp_path / "outbox.db", max_pending=9, max_pending_per_user=9):
        pass
    with contextlib.closing(sqlite3.connect(tmp_path / "outbox.db")) as newer, newer:
        newer.execute("INSERT INTO outbox_migrations VALUES ('9999_later', 0)")
    async with running("serve", environment=settings, ready="a newer version") as service:
        assert await service.ended() == 2


async def is_closed_by_answer(http: aiohttp.ClientSession, url: str) -> bool:
    """True when an answer says that its connection, which is kept else, was used once more."""
    async with http.get(f"{url}/healthz") as answer:
        return answer.headers.get("Connection") == "close"


@PROCESSES
async def test_a_passed_socket_outlives_the_service_and_connections_wait_for_the_next(
    tmp_path: Path, inngest_api: FakeInngest, processes: str
) -> None:
    settings = environment(
        f"sqlite:///{tmp_path / 'outbox.db'}", inngest_api.url, WEB_CONCURRENCY=processes
    )
    with contextlib.ExitStack() as opened:
        held = [opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        urls = [f"http://127.0.0.1:{one.getsockname()[1]}" for one in held]
        async with running("serve", environment=settings, passed=held) as first, client() as poster:
            assert first.url == urls[0]
            await poster.sign_in(first.url)
            async with posting(poster, first.url):
                await more_accepted(poster, FEW)
                async with aiohttp.ClientSession(timeout=PATIENCE) as http:
                    for url in urls:
                        assert not await is_closed_by_answer(http, url)
                    first.process.send_signal(signal.SIGTERM)
                    while not await is_closed_by_answer(http, first.url):
                        pass
                assert await first.ended() == 0
                async with running("serve", environment=settings, passed=held):
                    await more_accepted(poster, FEW)
                    await delivered(inngest_api, poster.accepted)


@PROCESSES
async def test_a_file_without_its_log_starts_when_its_loss_is_accepted_and_only_then(
    tmp_path: Path, inngest_api: FakeInngest, processes: str
) -> None:
    outbox = tmp_path / "outbox.db"
    settings = environment(f"sqlite:///{outbox}", "http://127.0.0.1:1", WEB_CONCURRENCY=processes)
    async with running("serve", environment=settings) as killed, client() as poster:
        await poster.sign_in(killed.url)
        assert await poster.post(killed.url) == 200
        children = children_of(killed)
        killed.process.send_signal(signal.SIGSTOP)  # else the children see it end, and stop
        for child in children:
            child.kill()
        killed.kill()
        await killed.ended()
        await all_gone(children)
    Path(f"{outbox}-wal").unlink()  # noqa: ASYNC240
    async with running("serve", environment=settings, ready="--accept-loss") as refused:
        assert await refused.ended() == 2
    async with running("serve", "--accept-loss", environment=settings) as accepted:
        assert await accepted.stop() == 0
