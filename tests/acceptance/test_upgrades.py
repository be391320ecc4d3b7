"""One process: a new version of the program, or a restart by systemd, refuses no post."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.dev.fake_inngest.server import FakeInngest
from tests.support.beside import beside
from tests.support.fleet import Client, client, environment, running
from tests.support.front_processes import delivered, more_accepted
from tests.support.installed import add_migration, install
from tests.support.outbox_command import outbox_command

FEW = 5

ENDLESS = "WITH RECURSIVE n AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT count(*) FROM n;"


@contextlib.asynccontextmanager
async def posting(poster: Client, url: str) -> AsyncIterator[None]:
    """Posts on new connections, one after the other; at the end all were accepted."""

    async def post() -> None:
        while True:
            assert await poster.post_on_a_new_connection(url) == 200

    async with beside(post(), post()):
        yield


async def test_one_process_becomes_the_new_version_and_refuses_no_post(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    outbox = tmp_path / "outbox.db"
    settings = environment(f"sqlite:///{outbox}", inngest_api.url)
    async with running("serve", environment=settings) as alone, client() as poster:
        await poster.sign_in(alone.url)
        async with posting(poster, alone.url):
            for times in (2, 3):
                alone.process.send_signal(signal.SIGHUP)
                await alone.said("Listening on", times=times)
                await more_accepted(poster, FEW)
            assert await outbox_command(outbox, "upgrade") == (0, "The new version serves.\n", "")
            await alone.said("Listening on", times=4)
            await more_accepted(poster, FEW)
        await delivered(inngest_api, poster.accepted)
        assert await alone.stop() == 0


async def test_a_new_version_that_does_not_load_leaves_the_one_process_at_work(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    settings_file = tmp_path / "settings.json"
    settings_file.write_text("{}")
    settings = environment(
        f"sqlite:///{tmp_path / 'outbox.db'}", inngest_api.url, APP_SETTINGS_FILE=str(settings_file)
    )
    async with running("serve", environment=settings) as alone, client() as poster:
        await poster.sign_in(alone.url)
        settings_file.write_text("no JSON")
        alone.process.send_signal(signal.SIGHUP)
        await alone.said("Upgrade failed: .*APP_SETTINGS_FILE")
        code, out, err = await outbox_command(tmp_path / "outbox.db", "upgrade")
        assert (code, out) == (2, "")
        assert err.startswith("outbox: The old version continues.")
        assert "APP_SETTINGS_FILE" in err
        assert await poster.post(alone.url) == 200


async def test_a_new_version_that_can_not_migrate_leaves_the_one_process_at_work(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    outbox, program = tmp_path / "outbox.db", tmp_path / "program"
    settings = environment(f"sqlite:///{outbox}", inngest_api.url, **install(program))
    async with running("serve", environment=settings) as alone, client() as poster:
        await poster.sign_in(alone.url)
        async with posting(poster, alone.url):
            add_migration(program, "ALTER TABLE absent ADD COLUMN more;")
            code, out, err = await outbox_command(outbox, "upgrade")
            assert (code, out) == (2, "")
            assert "The old version continues." in err
            assert "no such table: absent" in err
            await more_accepted(poster, FEW)
            add_migration(program, "ALTER TABLE outbox ADD COLUMN more TEXT;")
            assert await outbox_command(outbox, "upgrade") == (0, "The new version serves.\n", "")
            await more_accepted(poster, FEW)
        await delivered(inngest_api, poster.accepted)
        assert await alone.stop() == 0
        # It let go of the outbox for the version that failed, for the one that serves, and now.
        assert sum("Stopping: " in line for line in alone.lines) == 3


async def test_a_stop_while_the_new_version_has_the_outbox_opens_it_no_more(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    outbox, program = tmp_path / "outbox.db", tmp_path / "program"
    settings = environment(f"sqlite:///{outbox}", inngest_api.url, **install(program))
    async with running("serve", environment=settings) as alone:
        add_migration(program, ENDLESS)
        alone.process.send_signal(signal.SIGHUP)
        await alone.said("Stopping: ")
        assert await alone.stop() == 0
        assert sum("Stopping: " in line for line in alone.lines) == 1


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_a_passed_socket_outlives_the_service_and_connections_wait_for_the_next(
    tmp_path: Path, inngest_api: FakeInngest, processes: str
) -> None:
    settings = environment(
        f"sqlite:///{tmp_path / 'outbox.db'}", inngest_api.url, WEB_CONCURRENCY=processes
    )
    with socket.create_server(("127.0.0.1", 0)) as held:
        async with running("serve", environment=settings, passed=held) as first, client() as poster:
            assert first.url == f"http://127.0.0.1:{held.getsockname()[1]}"
            await poster.sign_in(first.url)
            async with posting(poster, first.url):
                await more_accepted(poster, FEW)
                assert await first.stop() == 0
                async with running("serve", environment=settings, passed=held):
                    await more_accepted(poster, FEW)
                    await delivered(inngest_api, poster.accepted)


async def test_without_a_service_there_is_nothing_to_upgrade(tmp_path: Path) -> None:
    code, _, err = await outbox_command(tmp_path / "outbox.db", "upgrade")
    assert code == 2
    assert "No service runs on this outbox" in err


async def test_a_passed_descriptor_that_does_not_listen_is_a_fault_of_the_configuration(
    tmp_path: Path,
) -> None:
    settings = environment(f"sqlite:///{tmp_path / 'outbox.db'}", "http://127.0.0.1:1")
    with socket.socket() as unbound:
        async with running("serve", environment=settings, passed=unbound, ready="LISTEN_FDS") as it:
            assert await it.ended() == 2
