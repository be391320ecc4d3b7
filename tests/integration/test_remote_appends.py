"""Appends of a front process: many in a message, each answered by itself."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import msgspec
import pytest

from service.errors import IdempotencyKeyReusedError
from service.observe.recorder import NullRecorder
from service.outbox.inngest_id import InngestIds
from service.outbox.keys import IdempotencyKey
from service.outbox.link.channel import Channel
from service.outbox.link.messages import Appends, NewEvent, Receipts, Status
from service.outbox.link.outbox import open_remote_outbox
from service.outbox.link.server import OutboxServer
from service.outbox.link.store_session import StoreSession
from service.outbox.receipt import Receipt
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
        ready = msgspec.msgpack.encode(Status(None, 0, 0))
        writer.write(len(ready).to_bytes(4, "big") + ready)
        while head := await reader.read(4):
            body = await reader.readexactly(int.from_bytes(head, "big"))
            arrived.put_nowait(msgspec.msgpack.decode(body, type=Appends))
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


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))


async def test_events_of_one_turn_leave_at_once_in_the_next() -> None:
    wire, sessions = Wire(), list[StoreSession]()

    def listener(channel: Channel) -> StoreSession:
        sessions.append(StoreSession(channel, lambda *_: None))
        return sessions[0]

    Channel(listener).connection_made(wire)
    sent = [event(), event()]
    for each in sent:
        sessions[0].append(each, None)
    assert not wire.writes
    await asyncio.sleep(0)
    [written] = wire.writes
    assert [one.event for one in msgspec.msgpack.decode(written[4:], type=Appends).events] == sent


async def test_receipts_leave_in_the_turn_after_they_are_gathered() -> None:
    wire, outbox, ids = Wire(), Mock(), InngestIds(bytes(6))
    stored = [asyncio.get_running_loop().create_future() for _ in range(2)]
    outbox.intake.start.side_effect = stored
    channel = Channel(OutboxServer(outbox, lambda: Status(None, 0, 0)).connected)
    channel.connection_made(wire)
    await asyncio.sleep(0)
    wire.writes.clear()
    message = msgspec.msgpack.encode(Appends([NewEvent(n, event(), None) for n in (1, 2)]))
    channel.data_received(len(message).to_bytes(4, "big") + message)
    receipts = [Receipt("e-1", 1, 0, ids), Receipt("e-2", 2, 0, ids)]
    for future, receipt in zip(stored, receipts, strict=True):
        future.set_result([receipt])
    for _ in range(2):
        assert not wire.writes
        await asyncio.sleep(0)
    [written] = wire.writes
    told = msgspec.msgpack.decode(written[4:], type=Receipts).receipts
    assert told == [(1, receipts[0]), (2, receipts[1])]
