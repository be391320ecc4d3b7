"""Appends of a front process: many in a message, each answered by itself."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from service.errors import IdempotencyKeyReusedError
from service.observe.recorder import NullRecorder
from service.outbox.keys import IdempotencyKey, Receipt
from service.outbox.link.messages import Appends, Hello, Status
from service.outbox.link.outbox import open_remote_outbox
from service.supervisor import run_supervisor
from tests.support.remote_storage import remote_outbox, unix_socket
from tests.support.storage import SqliteStorage, event


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    with unix_socket(tmp_path / "store") as bound:
        yield bound


async def test_events_of_one_turn_share_messages_that_are_bounded(
    tmp_path: Path, listening: socket.socket
) -> None:
    arrived: asyncio.Queue[Appends] = asyncio.Queue()
    ended = asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ready = msgspec.msgpack.encode(Status())
        writer.write(len(ready).to_bytes(4, "big") + ready)
        while head := await reader.read(4):
            body = await reader.readexactly(int.from_bytes(head, "big"))
            message = msgspec.msgpack.decode(body, type=Appends | Hello)
            if isinstance(message, Appends):
                arrived.put_nowait(message)
        writer.close()
        await writer.wait_closed()
        ended.set()

    async with (
        await asyncio.start_unix_server(take, sock=listening),
        run_supervisor(NullRecorder()) as supervisor,
    ):
        async with open_remote_outbox(str(tmp_path / "store"), supervisor) as remote:
            sent = [event() for _ in range(20)] + [event(size=700_000) for _ in range(4)]
            posts = [asyncio.create_task(remote.intake.append(each)) for each in sent]
            messages = [await arrived.get() for _ in range(2)]
            for post in posts:
                post.cancel()
        await ended.wait()
    assert [one.event for each in messages for one in each.events] == sent
    assert all(sum(len(one.event.payload) for one in each.events) < 2**21 for each in messages)


async def test_an_event_that_is_refused_fails_alone(tmp_path: Path) -> None:
    async with (
        SqliteStorage(tmp_path / "outbox.db").open() as store,
        remote_outbox(store) as remote,
    ):
        key, other = (IdempotencyKey("k", bytes([n]) * 32) for n in (1, 2))
        await remote.intake.append(event(), key=key)
        found = await asyncio.gather(
            remote.intake.append(event()),
            remote.intake.append(event(), key=other),
            remote.intake.append(event(), key=key),
            return_exceptions=True,
        )
        assert [type(one) for one in found] == [Receipt, IdempotencyKeyReusedError, Receipt]
        assert (await store.inspector.stats()).pending == 2
