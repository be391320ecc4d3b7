"""While an outbox is moved, and after it, no service writes to the wrong one."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from service.bootstrap.operations import move_outbox
from service.errors import OutboxMoveError, OutboxUnavailableError
from service.outbox.schema import migrate
from tests.support.moving import move
from tests.support.storage import PostgresStorage, SqliteStorage, append_all, event


async def test_a_service_is_seen_whatever_it_calls_itself(path: Path, target: str) -> None:
    migrate(target)
    async with PostgresStorage(f"{target}&application_name=mine").open() as served:
        await append_all(served, 1)

        with pytest.raises(OutboxMoveError, match="source is being served"):
            await move(target, f"sqlite:///{path}")
        assert list(path.parent.iterdir()) == []
        await append_all(served, 1)


async def test_a_role_that_only_connects_can_not_make_an_outbox_look_served(
    path: Path, target: str
) -> None:
    """It may see the advisory locks of others, and take the same."""
    migrate(target)
    with psycopg.connect(target, autocommit=True) as stranger:
        async with PostgresStorage(target).open() as served:
            await append_all(served, 1)
            seen = stranger.execute(
                "SELECT classid, objid FROM pg_locks WHERE locktype = 'advisory'"
            )
            locks = set(seen.fetchall())
        for lock in locks:
            stranger.execute("SELECT pg_advisory_lock_shared(%s::int, %s::int)", lock)
        assert (await move(target, f"sqlite:///{path}")).written == 1


async def test_an_outbox_that_was_left_takes_nothing_more(path: Path, target: str) -> None:
    """A service that the move did not see, as one that hung, learns it from the database."""
    migrate(target)
    async with PostgresStorage(target).open() as unseen:
        await append_all(unseen, 3)
        await unseen.supervisor.stop("outbox-inbox")
        with psycopg.connect(target, autocommit=True) as connection:
            connection.execute("UPDATE outbox.turns SET until = now()")
        await move(target, f"sqlite:///{path}")
        with pytest.raises(OutboxUnavailableError):
            await unseen.intake.append(event())
        assert unseen.failure
        assert "sealed" in unseen.failure
    with (
        psycopg.connect(target) as application,
        pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState),
    ):
        application.execute("SELECT outbox.append('n', '{}')")
    async with SqliteStorage(path).open() as moved:
        assert (await moved.inspector.stats()).pending == 3


async def test_a_target_takes_nothing_before_the_move_is_finished(path: Path, target: str) -> None:
    async with SqliteStorage(path).open() as outbox:
        await append_all(outbox, 2)

    def interrupted(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        move_outbox(f"sqlite:///{path}", target, actor="ada", progress=interrupted)
    async with PostgresStorage(target).open() as early:
        with pytest.raises(OutboxUnavailableError):
            await early.intake.append(event())
    await move(f"sqlite:///{path}", target)
    async with PostgresStorage(target).open() as moved:
        await append_all(moved, 1)
        stats = await moved.inspector.stats()
        assert (stats.pending, stats.delivered) == (3, 0)


async def test_a_file_that_was_left_is_not_served_again(path: Path, target: str) -> None:
    async with SqliteStorage(path).open() as served:
        await append_all(served, 2)
    await move(f"sqlite:///{path}", target)
    with pytest.raises(OutboxMoveError, match="was moved"):
        async with SqliteStorage(path).open():
            pass
    await move(target, f"sqlite:///{path}")
    async with SqliteStorage(path).open() as back:
        assert (await back.inspector.stats()).pending == 2
