"""SIGHUP: a service of several processes is replaced by a new version."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from service.fake_inngest.server import FakeInngest
from tests.support.fleet import client, environment, running
from tests.support.front_processes import children_of, delivered, two_fronts


async def test_an_upgrade_under_load_refuses_no_post(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    url = f"sqlite:///{tmp_path / 'outbox.db'}"
    async with two_fronts(url, inngest_api) as (parent, poster):
        stop = asyncio.Event()

        async def post() -> None:
            async with client() as own:
                await own.sign_in(parent.url)
                while not stop.is_set():
                    await own.post(parent.url)
                poster.accepted += own.accepted
                poster.refused += own.refused
                poster.broken += own.broken

        posting = [asyncio.create_task(post()) for _ in range(8)]
        for number in (1, 2):
            before = children_of(parent)
            parent.process.send_signal(signal.SIGHUP)
            await parent.said("Upgrade: done", times=number)
            assert not set(before) & set(children_of(parent))
            assert len(children_of(parent)) == 3
        stop.set()
        await asyncio.gather(*posting)
        assert (poster.refused, poster.broken) == ([], 0)
        await delivered(inngest_api, poster.accepted)
        assert await parent.stop() == 0


async def test_an_upgrade_to_a_version_that_does_not_load_changes_nothing(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    settings_file = tmp_path / "settings.json"
    settings_file.write_text("{}")
    url = f"sqlite:///{tmp_path / 'outbox.db'}"
    async with two_fronts(url, inngest_api, APP_SETTINGS_FILE=str(settings_file)) as (
        parent,
        poster,
    ):
        before = children_of(parent)
        settings_file.write_text("no JSON")
        parent.process.send_signal(signal.SIGHUP)
        await parent.said("Upgrade failed")
        assert await poster.post(parent.url) == 200
        assert set(children_of(parent)) == set(before)


async def test_one_process_alone_says_that_it_has_nothing_to_reload(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    settings = environment(f"sqlite:///{tmp_path / 'outbox.db'}", inngest_api.url)
    async with running("serve", environment=settings) as alone, client() as poster:
        await poster.sign_in(alone.url)
        alone.process.send_signal(signal.SIGHUP)
        await alone.said("SIGHUP")
        assert await poster.post(alone.url) == 200
