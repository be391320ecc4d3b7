"""A new store process that can't store events takes the outbox over from no other."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from service.bootstrap.readiness import store_status
from service.bootstrap.stores import Outbox
from service.config.settings import Settings
from service.errors import OutboxUnavailableError
from service.observe.recorder import NullRecorder
from service.outbox.link.outbox import open_remote_outbox
from service.outbox.link.server import serve_outbox
from service.outbox.link.store_link import LinkPolicy
from service.outbox.sqlite.commit import SqliteCommits
from service.processes.child_process import WAITS, Handles
from service.processes.serve_store import serve_as_store
from service.supervisor import run_supervisor
from tests.support.fleet import environment
from tests.support.remote_storage import unix_socket
from tests.support.storage import SqliteStorage, event, eventually

_GO = b"g"
QUICK = LinkPolicy(closing_patience_seconds=60, retry_seconds=0.01)


class Logs:
    def close(self) -> None:
        pass


async def test_posts_wait_while_a_new_store_fails_to_open_the_outbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_room(_: object) -> None:
        full = sqlite3.OperationalError("database or disk is full")
        full.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise OutboxUnavailableError("The disk of the outbox is full.") from full

    storage = SqliteStorage(tmp_path / "outbox.db")
    async with storage.open():
        pass
    settings = Settings.load(environment(storage.url, "http://127.0.0.1:1"))
    logs: Any = Logs()
    parent, child = socket.socketpair()
    with parent, child, unix_socket(tmp_path / "store") as listening:
        async with (
            run_supervisor(NullRecorder()) as supervisor,
            open_remote_outbox(str(tmp_path / "store"), supervisor, QUICK) as remote,
        ):
            async with storage.open() as old, _served(listening, old):
                await eventually(lambda: asyncio.sleep(0, not remote.failure))
            posted = event()
            appending = asyncio.create_task(remote.intake.append(posted))
            monkeypatch.setattr(SqliteCommits, "open", no_room)
            handles = Handles([listening.dup().detach()], child.fileno())
            new = asyncio.create_task(
                serve_as_store(settings, logs, handles, relay=True, take_over=True)
            )
            assert await asyncio.get_running_loop().run_in_executor(None, parent.recv, 1) == WAITS
            parent.send(_GO)
            with pytest.raises(OutboxUnavailableError):
                await new
            monkeypatch.undo()
            async with storage.open() as old, _served(listening, old):
                assert (await appending).event_id == posted.id


@contextlib.asynccontextmanager
async def _served(listening: socket.socket, store: Outbox) -> AsyncIterator[None]:
    async with serve_outbox(listening.dup(), store, lambda: store_status(store, None, [])):
        yield
