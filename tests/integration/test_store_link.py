"""A front process' link to its store process: over real sockets, with stores that come and go."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from service.bootstrap.stores import Outbox
from service.errors import (
    EventLeftError,
    IdempotencyKeyReusedError,
    OutboxFullError,
    OutboxUnavailableError,
    SchemaTooNewError,
    TooManyPendingError,
)
from service.observe.recorder import NullRecorder
from service.outbox.link.channel import Channel
from service.outbox.link.messages import PROTOCOL, Call, Fault, Hello, Status, from_fault, to_fault
from service.outbox.link.outbox import RemoteOutbox, open_remote_outbox
from service.outbox.link.store_link import LinkPolicy
from service.outbox.model import Filter, State
from service.supervisor import run_supervisor
from tests.support.remote_storage import served, unix_socket
from tests.support.storage import PATIENCE_SECONDS, SqliteStorage, event, eventually

QUICK = LinkPolicy(patience_seconds=0.2, retry_seconds=0.01)
PATIENT = LinkPolicy(patience_seconds=20, retry_seconds=0.01)


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    with unix_socket(tmp_path / "store") as bound:
        yield bound


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Outbox]:
    async with SqliteStorage(tmp_path / "outbox.db").open() as outbox:
        yield outbox


@contextlib.asynccontextmanager
async def front(tmp_path: Path, policy: LinkPolicy = PATIENT) -> AsyncIterator[RemoteOutbox]:
    async with (
        run_supervisor(NullRecorder()) as supervisor,
        open_remote_outbox(str(tmp_path / "store"), supervisor, policy) as remote,
    ):
        yield remote


async def test_a_call_waits_for_a_store_that_is_about_to_come(
    tmp_path: Path, listening: socket.socket, store: Outbox
) -> None:
    opening = front(tmp_path)
    entered = asyncio.create_task(opening.__aenter__())
    await asyncio.sleep(0)
    async with served(listening.dup(), store):
        remote = await entered
        sent = event()
        assert (await remote.intake.append(sent)).event_id == sent.id
        await opening.__aexit__(None, None, None)


async def test_without_a_store_calls_fail_after_a_moment_and_then_at_once(tmp_path: Path) -> None:
    async with front(tmp_path, QUICK) as remote:
        assert remote.failure
        with pytest.raises(OutboxUnavailableError) as error:
            await remote.intake.append(event())
        assert error.value.retry_after_seconds == 1
        again = asyncio.ensure_future(remote.intake.append(event()))
        for _ in range(5):
            await asyncio.sleep(0)
        assert again.done()
        with pytest.raises(OutboxUnavailableError):
            await again


async def test_a_store_that_closes_answers_what_it_got_and_the_next_one_gets_the_rest(
    tmp_path: Path, listening: socket.socket, store: Outbox
) -> None:
    async with contextlib.AsyncExitStack() as first:
        await first.enter_async_context(served(listening.dup(), store))
        async with front(tmp_path, LinkPolicy(patience_seconds=0.5)) as remote:
            await eventually(lambda: asyncio.sleep(0, not remote.failure))
            events = [event() for _ in range(200)]
            early = [asyncio.create_task(remote.intake.append(each)) for each in events[:100]]
            await asyncio.sleep(0)
            closing = asyncio.create_task(first.aclose())
            late = [asyncio.create_task(remote.intake.append(each)) for each in events[100:]]
            await closing
            await asyncio.sleep(0.6)  # longer than calls wait for a store that was lost
            async with served(listening.dup(), store):
                receipts = await asyncio.gather(*early, *late)
    assert [receipt.event_id for receipt in receipts] == [each.id for each in events]
    assert (await store.inspector.stats()).pending == 200


async def test_a_call_whose_store_is_lost_fails(tmp_path: Path, listening: socket.socket) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(message(READY))
        await reader.readexactly(len(message(Hello(PROTOCOL))) + 1)  # a call has begun
        writer.close()

    server = await asyncio.start_unix_server(hang_up, sock=listening)
    async with front(tmp_path, QUICK) as remote:
        with pytest.raises(OutboxUnavailableError):
            await remote.intake.append(event())
    server.close()


async def test_a_store_that_says_nothing_is_away(tmp_path: Path, listening: socket.socket) -> None:
    async def say_no_more(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(message(READY))
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(say_no_more, sock=listening)
    impatient = LinkPolicy(patience_seconds=0.2, retry_seconds=0.01, silence_seconds=0.1)
    async with front(tmp_path, impatient) as remote:
        with pytest.raises(OutboxUnavailableError):
            await remote.intake.append(event())
    server.close()


async def test_a_front_that_does_not_read_holds_up_nobody(
    tmp_path: Path, listening: socket.socket, store: Outbox
) -> None:
    stored = event(size=1_000_000)
    await store.intake.append(stored)
    async with served(listening.dup(), store), front(tmp_path) as remote:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stuck:
            stuck.connect(str(tmp_path / "store"))
            stuck.sendall(message(Hello(PROTOCOL)))
            arguments = msgspec.Raw(msgspec.msgpack.encode([stored.id]))
            for number in range(50):
                stuck.sendall(message(Call(number, "Inspector.payload", arguments)))
            sent = event()
            assert (await remote.intake.append(sent)).event_id == sent.id
            assert await remote.inspector.payload(stored.id) == stored.payload


async def test_large_calls_and_large_answers_at_once_do_not_wait_for_each_other(
    tmp_path: Path, listening: socket.socket, store: Outbox
) -> None:
    stored = event(size=1_000_000)
    await store.intake.append(stored)
    sent = [event(size=1_000_000) for _ in range(8)]
    async with served(listening.dup(), store), front(tmp_path) as remote:
        payloads, receipts = await asyncio.gather(
            asyncio.gather(*(remote.inspector.payload(stored.id) for _ in sent)),
            asyncio.gather(*map(remote.intake.append, sent)),
        )
    assert payloads == [stored.payload] * len(sent)
    assert [receipt.event_id for receipt in receipts] == [each.id for each in sent]


async def test_a_change_of_a_scope_is_seen_by_every_front(
    tmp_path: Path, listening: socket.socket, store: Outbox
) -> None:
    async with (
        served(listening.dup(), store),
        front(tmp_path) as here,
        front(tmp_path) as there,
    ):
        before_here, before_there = here.settings.scope_revision, there.settings.scope_revision
        await here.settings.save_scope("user", "u-1", {"a": 1})
        assert here.settings.scope_revision > before_here

        async def seen() -> bool:
            return there.settings.scope_revision > before_there

        await eventually(seen)
        assert await there.settings.load_scope("user", "u-1") == {"a": 1}


async def test_a_new_store_may_have_changed_every_scope(
    tmp_path: Path, listening: socket.socket, store: Outbox
) -> None:
    async with contextlib.AsyncExitStack() as first:
        await first.enter_async_context(served(listening.dup(), store))
        async with front(tmp_path) as remote:
            before = remote.settings.scope_revision
            await first.aclose()
            async with served(listening.dup(), store):
                await remote.inspector.stats()
                assert remote.settings.scope_revision > before


async def test_a_result_can_be_many_rows(
    tmp_path: Path, listening: socket.socket, store: Outbox
) -> None:
    for _ in range(300):
        await store.intake.append(event())
    async with served(listening.dup(), store), front(tmp_path) as remote:
        rows = await remote.inspector.rows(Filter(limit=1000))
        assert len(rows) == 300
        assert {row.state for row in rows} == {State.PENDING}


@pytest.mark.parametrize(
    "sent",
    [
        b"\xff\xff\xff\xff",
        b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
        b"\0\0\0\5hello",
        b"\0\0\0\2\x92\x08",
        b"\0\0\0\2\x91\x05",
    ],
    ids=["too large", "HTTP", "text", "a part", "no greeting"],
)
async def test_garbage_ends_its_connection_only_and_logs_no_traceback(
    tmp_path: Path, listening: socket.socket, store: Outbox, sent: bytes
) -> None:
    async with served(listening.dup(), store), front(tmp_path) as remote:
        with structlog.testing.capture_logs() as lines:
            assert await answered(tmp_path / "store", sent) == b""
        assert [line["event"] for line in lines] == ["link_message_refused"]
        assert "exc_info" not in lines[0]
        assert (await remote.inspector.stats()).pending == 0


async def test_an_unknown_version_of_the_protocol_gets_a_sentence(
    tmp_path: Path, listening: socket.socket, store: Outbox
) -> None:
    async with served(listening.dup(), store):
        answer = await answered(tmp_path / "store", message(Hello(PROTOCOL + 1)))
    fault = msgspec.msgpack.decode(answer[4:], type=Fault)
    assert (fault.number, fault.message) == (
        0,
        "The service speaks version 1 of its link, the caller version 2.",
    )


async def answered(path: Path, sent: bytes) -> bytes:
    """The bytes that the store process sends before it ends the connection."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(sent)
    async with asyncio.timeout(PATIENCE_SECONDS):
        try:
            answer = await reader.read()
        except ConnectionResetError:
            answer = b""
    writer.close()
    return answer


@pytest.mark.parametrize(
    "error",
    [
        OutboxUnavailableError(retry_after_seconds=7),
        OutboxUnavailableError("The disk is full.", retry_after_seconds=9),
        TooManyPendingError(retry_after_seconds=5),
        OutboxFullError("No room.", retry_after_seconds=5),
        IdempotencyKeyReusedError(),
        EventLeftError(),
        SchemaTooNewError(),
        ValueError("the events of one call are of one owner"),
    ],
)
def test_an_error_of_the_store_arrives_as_it_was(error: Exception) -> None:
    arrived = from_fault(to_fault(1, error))
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)


def test_an_error_that_is_not_the_stores_own_is_unavailability() -> None:
    arrived = from_fault(to_fault(1, ZeroDivisionError("secret")))
    assert type(arrived) is OutboxUnavailableError
    assert "secret" not in str(arrived)


class Kept:
    def __init__(self) -> None:
        self.messages: list[bytes] = []

    def received(self, message: memoryview) -> None:
        self.messages.append(bytes(message))

    def lost(self) -> None:
        pass


@given(st.lists(st.binary(max_size=300)), st.data())
def test_messages_arrive_whole_however_the_stream_is_cut(
    messages: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(len(one).to_bytes(4, "big") + one for one in messages)
    kept = Kept()
    channel = Channel(lambda _: kept)
    channel.connection_made(asyncio.Transport())
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        channel.data_received(stream[:cut])
        stream = stream[cut:]
    assert kept.messages == messages


READY = Status()


def message(body: object) -> bytes:
    encoded = msgspec.msgpack.encode(body)
    return len(encoded).to_bytes(4, "big") + encoded
