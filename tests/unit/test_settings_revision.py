"""When a process on PostgreSQL learns that settings were saved, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from service.errors import OutboxUnavailableError
from service.outbox.postgres.settings import READ_REVISION, SAVE_SCOPE, PostgresSettings
from tests.support.virtual_time import in_virtual_time, now
from tests.support.watched_tasks import WatchedTasks


class World(WatchedTasks):
    """What settings use: the database's revision, the wake-up and the tasks."""

    def __init__(self) -> None:
        super().__init__()
        given: Any = self
        self.revision = 3
        self.returns = 0
        self.error: Exception | None = None
        self.reads: list[float] = []
        self.told: list[float] = []
        self.changed: Callable[[], None] = lambda: None
        self.settings = PostgresSettings(given, given, given)

    async def run(self, statement: str, given: Any = None) -> list[tuple[int]]:
        if statement == SAVE_SCOPE:
            self.revision += 1
            return [(self.revision,)]
        assert (statement, given) == (READ_REVISION, None)
        self.reads.append(now())
        assert len(self.reads) < 100, "it reads without a pause"
        if self.error:
            raise self.error
        return [(self.revision,)]

    def settings_were_saved(self) -> None:
        self.told.append(now())

    def on_settings(self, changed: Callable[[], None]) -> None:
        self.changed = changed


@in_virtual_time
async def test_the_revision_is_read_at_the_start_every_five_seconds_and_when_told() -> None:
    world = World()
    assert world.settings.scope_revision == 0
    async with world.settings as settings:
        assert settings is world.settings
        assert set(world.tasks) == {"outbox-scopes"}
        assert settings.scope_revision == 3
        await asyncio.sleep(7)
        world.revision = 8
        world.changed()
        await asyncio.sleep(1)
        assert settings.scope_revision == 8
        await asyncio.sleep(5)
    assert world.tasks == {}
    assert world.reads == [0, 5, 7, 12]


@in_virtual_time
async def test_a_save_raises_the_revision_and_tells_the_others() -> None:
    world = World()
    await asyncio.sleep(1)
    await world.settings.save_scope("user", "ada", {})
    assert (world.settings.scope_revision, world.told) == (4, [1])


@in_virtual_time
async def test_the_revision_never_goes_back() -> None:
    world = World()
    async with world.settings as settings:
        world.revision = 1
        world.changed()
        await asyncio.sleep(1)
        assert settings.scope_revision == 3
        await settings.save_scope("user", "ada", {})
        assert settings.scope_revision == 3


@in_virtual_time
async def test_a_read_that_fails_is_made_again_later() -> None:
    world = World()
    world.error = OutboxUnavailableError("down")
    async with world.settings as settings:
        assert settings.scope_revision == 0
        world.error = None
        await asyncio.sleep(5.5)
        assert settings.scope_revision == 3


@in_virtual_time
async def test_a_revision_that_another_server_gives_again_tells_of_a_change() -> None:
    """It lacks the last saves: each that it is asked for may be one that was seen before."""
    world = World()
    async with world.settings as settings:
        for returns, revision, told in ((1, 2, 4), (1, 2, 4), (1, 3, 5), (2, 3, 6), (2, 1, 6)):
            world.returns, world.revision = returns, revision
            world.changed()
            await asyncio.sleep(1)
            assert settings.scope_revision == told
        world.returns = 3
        await settings.save_scope("user", "ada", {})
        assert settings.scope_revision == 7
