"""A front process' link to its store process: over real sockets, with stores that come and go."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from inngest_outbox.bootstrap.stores import Outbox
from inngest_outbox.config.values import InngestAddress
from inngest_outbox.errors import (
    EventLeftError,
    IdempotencyKeyReusedError,
    OutboxError,
    OutboxFullError,
    OutboxUnavailableError,
    RefusedError,
    SchemaTooNewError,
    TooManyPendingError,
)
from inngest_outbox.outbox.event import Event
from inngest_outbox.outbox.inngest_id import InngestIds
from inngest_outbox.outbox.keys import IdempotencyKey, Receipt
from inngest_outbox.outbox.link.channel import Channel
from inngest_outbox.outbox.link.messages import (
    PROTOCOL,
    Appends,
    Call,
    Closing,
    Fault,
    Goodbye,
    Hello,
    NewEvent,
    Receipts,
    Result,
    Status,
    from_fault,
    to_fault,
)
from inngest_outbox.outbox.link.outbox import RemoteOutbox
from inngest_outbox.outbox.link.served import COMMAND_POLICY, Served
from inngest_outbox.outbox.link.server import LinkServer, ServedPart, serve_link
from inngest_outbox.outbox.link.store_link import LinkPolicy, StoreLink, open_link
from tests.support.remote_storage import (
    Line,
    caller,
    front,
    remote_outbox,
    scripted_store,
    served,
    unix_socket,
)
from tests.support.storage import PATIENCE_SECONDS, SqliteStorage, event, eventually
from tests.support.virtual_time import in_virtual_time, now

QUICK = LinkPolicy(patience_seconds=0.2, retry_seconds=0.01)
PATIENT = LinkPolicy(patience_seconds=20, retry_seconds=0.01)


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[list[Any]]:
    """What is logged; a test takes out what it expects. The event loop logs nothing."""
    with capture_logs() as lines:
        yield lines
    assert lines == caplog.get_records("call") == []


@pytest.fixture
def listening(short_path: Path) -> Iterator[socket.socket]:
    with unix_socket(short_path / "store") as bound:
        yield bound


@pytest.fixture
async def store(short_path: Path) -> AsyncIterator[Outbox]:
    async with SqliteStorage(short_path / "outbox.db").open() as outbox:
        yield outbox


@contextlib.asynccontextmanager
async def front_of(
    listening: socket.socket,
    script: Callable[[Line], Awaitable[None]],
    policy: LinkPolicy = PATIENT,
) -> AsyncIterator[RemoteOutbox]:
    """A front process whose store process follows `script`."""
    path = Path(listening.getsockname())
    async with scripted_store(listening, script), front(path, policy) as opened:
        yield opened


@pytest.fixture
async def remote(
    short_path: Path, listening: socket.socket, store: Outbox
) -> AsyncIterator[RemoteOutbox]:
    """`store` as a front process sees it."""
    async with served(listening.dup(), store), front(short_path / "store", PATIENT) as opened:
        yield opened


async def test_a_call_waits_for_a_store_that_is_about_to_come(
    short_path: Path, listening: socket.socket, store: Outbox
) -> None:
    opening = front(short_path / "store", PATIENT)
    entered = asyncio.create_task(opening.__aenter__())
    await asyncio.sleep(0)
    async with served(listening.dup(), store):
        remote = await entered
        sent = event()
        assert (await remote.intake.append(sent)).event_id == sent.id
        await opening.__aexit__(None, None, None)


@pytest.mark.parametrize(("policy", "seconds"), [(None, 3), (COMMAND_POLICY, 5)])
@in_virtual_time
async def test_a_front_looks_often_for_a_store_and_waits_three_seconds_for_it(
    monkeypatch: pytest.MonkeyPatch, policy: LinkPolicy | None, seconds: int
) -> None:
    looks = list[float]()

    async def absent(*_: object) -> None:
        looks.append(now())
        faults = (FileNotFoundError, ConnectionRefusedError, BlockingIOError, PermissionError)
        raise faults[len(looks) % (4 if policy is None else 3)]

    monkeypatch.setattr(asyncio.get_running_loop(), "create_unix_connection", absent)
    link = StoreLink("/nonexistent/store", policy)
    running = asyncio.create_task(link.run())
    assert link.status == Status("The store process does not answer.")
    for _ in range(2):  # the second call fails at once
        with pytest.raises(OutboxUnavailableError) as away:
            await RemoteOutbox(link).intake.append(event())
        words = policy.away if policy else None
        assert told_by(away.value) == told_by(OutboxUnavailableError(words, retry_after_seconds=1))
        assert now() == pytest.approx(seconds, abs=0.1)
    assert len(looks) >= 50
    running.cancel()


class Wire(asyncio.Transport):
    is_closed = False
    is_aborted = False
    looks = 0
    written = b""
    channel: Channel
    left: list[bytes]

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_aborted = True

    def write(self, data: Any) -> None:
        self.written += data


def one_store(monkeypatch: pytest.MonkeyPatch, *said: msgspec.Struct) -> Wire:
    """A store that is there once, and says this and nothing more."""
    wire = Wire()
    wire.left = [b"".join(map(message, said))]

    async def connect(make: Callable[[], Channel], _: str) -> tuple[Wire, Channel]:
        wire.looks += 1
        if not wire.left:
            raise FileNotFoundError
        wire.channel = make()
        wire.channel.connection_made(wire)
        wire.channel.data_received(wire.left.pop())
        return wire, wire.channel

    monkeypatch.setattr(asyncio.get_running_loop(), "create_unix_connection", connect)
    return wire


@pytest.mark.parametrize(
    ("policy", "seconds", "lost_seconds"), [(None, 30, 3), (COMMAND_POLICY, 5, 5)]
)
@in_virtual_time
async def test_a_front_waits_half_a_minute_for_the_next_store_after_one_that_closes(
    monkeypatch: pytest.MonkeyPatch, policy: LinkPolicy | None, seconds: int, lost_seconds: int
) -> None:
    wire = one_store(monkeypatch, Status(scope_revision=9), Closing())
    link = StoreLink("/nonexistent/store", policy)
    running = asyncio.create_task(link.run())
    await asyncio.sleep(seconds - 1)
    revision = link.scope_revision
    assert not wire.is_aborted  # it may answer until then
    with pytest.raises(OutboxUnavailableError):
        await link.connected()
    assert now() == pytest.approx(seconds, abs=0.1)
    first = wire.channel
    wire.left.append(message(Status()))
    await asyncio.sleep(1)
    assert (wire.is_aborted, link.status.failure) == (True, None)
    assert link.scope_revision > revision  # it may have changed every scope
    first.connection_lost(None)
    assert link.status.failure is None  # the next one is there
    wire.channel.connection_lost(None)
    with pytest.raises(OutboxUnavailableError):
        await link.connected()
    assert now() == pytest.approx(seconds + 1 + lost_seconds, abs=0.1)
    running.cancel()


@in_virtual_time
async def test_a_front_looks_for_the_next_store_as_soon_as_one_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = InngestAddress("http://e", "http://a", "key", None)
    ids = InngestIds(bytes(6), 9, ((0, b"earlie"),))
    said = Status("Full.", 4, ("relay is down",), {"undelivered": 3}, address, ids)
    wire = one_store(monkeypatch, said)
    link = StoreLink("/nonexistent/store")
    running = asyncio.create_task(link.run())
    remote = RemoteOutbox(link)
    asking = asyncio.gather(
        remote.intake.append(event()), remote.inspector.stats(), return_exceptions=True
    )
    await asyncio.sleep(11)  # it was looked at
    sent, revision = wire.written, link.scope_revision
    wire.left.append(message(Status()))
    wire.channel.connection_lost(None)
    # No call is sent to it, not even in this turn.
    away = "The store process does not answer."
    assert link.status == msgspec.structs.replace(said, failure=away)
    assert link.scope_revision == revision
    waiting = asyncio.create_task(remote.inspector.stats())
    await asyncio.sleep(0.2)
    assert wire.looks == 2
    lost = told_by(OutboxUnavailableError(retry_after_seconds=1))
    assert [told_by(one) for one in await asking] == [lost] * 2
    called = Call(1, "Inspector.stats", msgspec.Raw(b"\x90"))
    assert wire.written == sent + message(Hello(PROTOCOL)) + message(called)  # no other again
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    wire.channel.connection_lost(None)
    with pytest.raises(OutboxUnavailableError):
        await waiting


async def test_what_is_said_to_one_that_is_gone_is_dropped() -> None:
    wire, channel = Wire(), Channel(lambda _: Kept())
    channel.connection_made(wire)
    channel.send(Closing())
    channel.send_now(Goodbye())
    assert wire.written == message(Closing()) + message(Goodbye())
    channel.send(Closing())
    channel.connection_lost(None)
    channel.send_now(Goodbye())
    channel.abort()
    assert wire.written == message(Closing()) + message(Goodbye())  # else the loop logs warnings


@in_virtual_time
async def test_a_front_gives_a_store_up_that_says_nothing_for_some_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, logged: list[Any]
) -> None:
    wire = one_store(monkeypatch, Status())
    link = StoreLink("/nonexistent/store")
    running = asyncio.create_task(link.run())
    revisions = set[int]()
    nothing = Result(0, msgspec.Raw(b"\xc0"))
    for said in (Status(), Receipts([]), nothing, Fault(9, "", "", None), Status()):
        await asyncio.sleep(9)
        assert (wire.is_aborted, link.status.failure) == (False, None)
        wire.channel.data_received(message(said))
        revisions.add(link.scope_revision)
    assert len(revisions) == 1  # else all settings are read again
    await asyncio.sleep(9)
    asking = asyncio.create_task(RemoteOutbox(link).inspector.stats())
    await asyncio.sleep(12)
    assert wire.is_aborted
    assert link.status.failure
    wire.channel.connection_lost(None)
    with pytest.raises(OutboxUnavailableError):
        await asking
    wire.left.append(message(Status()))
    await asyncio.sleep(1)
    assert link.status.failure is None  # another one has taken its place
    assert logged.pop() == {"event": "store_process_hangs", "log_level": "error"}
    running.cancel()


async def test_a_store_that_closes_answers_what_it_got_and_the_next_one_gets_the_rest(
    short_path: Path, listening: socket.socket, store: Outbox
) -> None:
    async with contextlib.AsyncExitStack() as first:
        await first.enter_async_context(served(listening.dup(), store))
        async with front(short_path / "store", LinkPolicy(patience_seconds=0.0)) as remote:
            await eventually(lambda: not remote.status.failure)
            events = [event() for _ in range(200)]
            early = [asyncio.create_task(remote.intake.append(each)) for each in events[:100]]
            await asyncio.sleep(0)
            closing = asyncio.create_task(first.aclose())
            late = [asyncio.create_task(remote.intake.append(each)) for each in events[100:199]]
            await closing
            assert remote.status.failure
            last = asyncio.create_task(remote.intake.append(events[199]))
            await asyncio.sleep(0)
            async with served(listening.dup(), store):
                receipts = await asyncio.gather(*early, *late, last)
    assert [receipt.event_id for receipt in receipts] == [each.id for each in events]
    assert (await store.inspector.stats()).pending == 200


async def test_a_call_that_was_given_up_may_be_answered_and_harms_no_other(
    listening: socket.socket,
) -> None:
    begun = asyncio.Event()

    async def answer_all(line: Line) -> None:
        for _ in range(3):
            await line.heard()
        begun.set()
        call = await line.heard()
        assert isinstance(call, Call)
        line.say(Receipts([(1, Receipt("e", 2, 3, InngestIds(b"six")))]))
        line.say(to_fault(2, OutboxFullError()))
        for number in (3, call.number):
            line.say(Result(number, msgspec.Raw(msgspec.msgpack.encode(b"{}"))))
        await line.heard()

    async with front_of(listening, answer_all) as remote:
        asked = (remote.intake.append(event()), *map(remote.inspector.payload, ("e-1", "e-2")))
        given_up = asyncio.gather(*asked)
        await begun.wait()
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        assert await remote.inspector.payload("e-3") == b"{}"


async def test_an_answer_of_another_version_is_unavailability(listening: socket.socket) -> None:
    async def answer(line: Line) -> None:
        call = await line.heard()
        assert isinstance(call, Call)
        line.say(Result(call.number, msgspec.Raw(msgspec.msgpack.encode({"new": 1}))))
        await line.heard()

    async with front_of(listening, answer) as remote:
        with pytest.raises(OutboxUnavailableError) as other:
            await remote.inspector.payload("e-1")
        assert other.value.retry_after_seconds == 1


async def test_a_store_that_closes_gets_every_event_before_the_goodbye(
    listening: socket.socket,
) -> None:
    appended: list[int] = []

    async def close(line: Line) -> None:
        while not isinstance(message := await line.heard(), Goodbye):
            assert isinstance(message, Appends)
            appended.extend(one.number for one in message.events)
            if len(appended) == 20:
                line.say(Closing())
        line.say(Status(scope_revision=1))  # a call that was under way has saved a scope
        for number in appended:
            line.say(to_fault(number, OutboxFullError()))

    policy = LinkPolicy(20, 0.1, retry_seconds=60, away="away", lost="lost")
    async with front_of(listening, close, policy) as remote:
        posts = []
        while not remote.status.failure:  # some in each turn, so in that of the closing too
            posts.append(asyncio.create_task(remote.intake.append(event())))
            await asyncio.sleep(0)
        ends = await asyncio.gather(*posts, return_exceptions=True)
    answered = [one for one in ends if isinstance(one, OutboxFullError)]
    assert remote.status.failure
    assert len(answered) == len(appended) >= 20
    assert {str(one) for one in ends if one not in answered} <= {"away"}


async def test_a_link_that_ends_leaves_no_connection_to_a_store_that_closes(
    listening: socket.socket,
) -> None:
    is_found, is_left = asyncio.Event(), asyncio.Event()

    async def close_and_hang(line: Line) -> None:
        await is_found.wait()
        line.say(Closing())
        while await line.heard():
            pass
        is_left.set()

    policy = LinkPolicy(20, closing_patience_seconds=3600.0, retry_seconds=0.05)
    path = Path(listening.getsockname())
    async with scripted_store(listening, close_and_hang), asyncio.timeout(PATIENCE_SECONDS):
        async with front(path, policy) as remote:
            is_found.set()
            await eventually(lambda: remote.status.failure)
        await is_left.wait()


@pytest.mark.faulty
@pytest.mark.parametrize("fault", [asyncio.CancelledError, KeyError, None])
async def test_every_call_has_an_answer(
    store: Outbox,
    monkeypatch: pytest.MonkeyPatch,
    fault: type[BaseException] | None,
    logged: list[Any],
) -> None:
    async def payload(_: Any, event_id: str) -> object:
        del event_id
        if fault:
            raise fault
        return object()  # which can't be encoded

    def start(*_: Any) -> asyncio.Future[object]:
        stored: asyncio.Future[object] = asyncio.Future()
        stored.cancel()
        return stored

    monkeypatch.setattr(type(store.inspector), "payload", payload)
    monkeypatch.setattr(type(store.intake), "start", start)
    async with remote_outbox(store) as remote, asyncio.timeout(PATIENCE_SECONDS):
        for call in (remote.inspector.payload("x"), remote.intake.append(event())):
            with pytest.raises(OutboxUnavailableError):
                await call
    assert logged.pop()["event"] == "call_failed"


async def test_a_store_that_closes_answers_each_call_that_is_under_way(
    short_path: Path, listening: socket.socket, store: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_answer, began = asyncio.Semaphore(0), list[str]()

    async def payload(_: Any, event_id: str) -> bytes:
        began.append(event_id)
        await may_answer.acquire()
        return event_id.encode() * 2_000_000  # more than the connection takes at once

    monkeypatch.setattr(type(store.inspector), "payload", payload)
    async with contextlib.AsyncExitStack() as serving:
        await serving.enter_async_context(served(listening.dup(), store))
        async with front(short_path / "store", PATIENT) as remote:
            asked = [asyncio.create_task(remote.inspector.payload(one)) for one in "ab"]
            await eventually(lambda: len(began) == 2)
            closing = asyncio.create_task(serving.aclose())
            await eventually(lambda: remote.status.failure)
            for one in asked:
                for _ in range(20):
                    await asyncio.sleep(0)  # so that what the last answer has caused is done
                may_answer.release()
                assert await one
            await closing


async def test_every_caller_of_a_closing_store_is_told_so_and_answered(
    short_path: Path, listening: socket.socket, store: Outbox
) -> None:
    async with contextlib.AsyncExitStack() as serving:
        await serving.enter_async_context(served(listening, store))
        late, *early = [await caller(short_path / "store") for _ in range(5)]
        for one in early:
            one.say(Hello(PROTOCOL))
            assert isinstance(await one.heard(), Status)
        closing = asyncio.create_task(serving.aclose())
        for one in early:
            while isinstance(message := await one.heard(), Status):
                pass
            assert isinstance(message, Closing)
        late.say(Hello(PROTOCOL))
        assert isinstance(await late.heard(), Closing)
        late.close()
        for one in early:  # each may take its time
            one.say(Call(1, "Inspector.stats", msgspec.Raw(b"\x90")))
            assert isinstance(await one.heard(), Result)
            one.say(Goodbye())
            for _ in range(20):
                await asyncio.sleep(0)  # so that what the goodbye has caused is done
        await closing
        for one in early:
            one.close()


async def test_a_store_that_closes_waits_for_no_caller_that_is_gone_and_ends_the_others(
    short_path: Path,
    listening: socket.socket,
    store: Outbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("inngest_outbox.outbox.link.server._DRAIN_SECONDS", 3600.0)
    async with contextlib.AsyncExitStack() as serving, asyncio.timeout(PATIENCE_SECONDS):
        await serving.enter_async_context(served(listening, store))
        silent, gone, done = [await caller(short_path / "store") for _ in range(3)]
        for one in (gone, done):
            one.say(Hello(PROTOCOL))
            assert isinstance(await one.heard(), Status)
        closing = asyncio.create_task(serving.aclose())
        while not isinstance(await done.heard(), Closing):
            pass
        gone.close()
        done.say(Goodbye())
        await closing
        for one in (done, silent):
            assert await one.heard() is None
            one.close()
    assert "tell-callers" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_a_command_of_another_user_is_told_why_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(asyncio.get_running_loop(), "create_unix_connection", refuse)
    patient = dataclasses.replace(COMMAND_POLICY, patience_seconds=3600)
    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(OutboxUnavailableError) as refused:
            async with open_link("/socket", patient):
                pass
    assert str(refused.value) == (
        "The service runs as another user, and only that user may send it commands. "
        "Run this command as the service's user."
    )


async def test_a_front_waits_for_the_next_store_after_one_of_another_version(
    short_path: Path,
) -> None:
    refused = list[bytes]()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        refused.append(await reader.read(100))
        writer.write(message(Fault(0, "OutboxUnavailableError", "It speaks version 7.", None)))
        writer.close()

    server = await asyncio.start_unix_server(refuse, path=short_path / "store")
    entering = asyncio.create_task(front(short_path / "store", PATIENT).__aenter__())
    await eventually(lambda: len(refused) >= 3)
    assert not entering.done()
    entering.cancel()
    await asyncio.wait([entering])
    server.close()


async def test_a_store_that_is_not_understood_answers_no_call(
    listening: socket.socket, logged: list[Any]
) -> None:
    async def greet_as_a_caller(line: Line) -> None:
        await line.heard()  # a call has begun
        line.say(Hello(PROTOCOL))
        await line.heard()

    async with front_of(listening, greet_as_a_caller) as remote, asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(OutboxUnavailableError):
            await remote.inspector.stats()
        assert logged.pop(0)["event"] == "link_message_refused"


def kept(kind: type) -> int:
    """How many objects of this kind the process remembers."""
    gc.collect()
    return sum(isinstance(one, kind) for one in gc.get_objects())


async def test_what_was_answered_is_forgotten(remote: RemoteOutbox) -> None:
    before = kept(asyncio.Future)
    for call in (lambda: remote.intake.append(event()), remote.inspector.stats):
        for _ in range(20):
            await call()
        assert kept(asyncio.Future) < before + 10


class Upgrading:
    """A service whose upgrade waits."""

    def __init__(self, may_end: asyncio.Event) -> None:
        self.may_end = may_end
        self.said: list[str] = []

    async def upgrade(self) -> None:
        self.said.append("began")
        await self.may_end.wait()
        self.said.append("ended")


async def test_a_caller_that_is_gone_is_forgotten_once_its_calls_have_ended(
    short_path: Path, listening: socket.socket, logged: list[Any]
) -> None:
    before, upgrading = kept(Channel), Upgrading(asyncio.Event())
    async with serve_link(listening, [ServedPart(Served, upgrading)], Status):
        line = await caller(short_path / "store")
        line.say(Hello(PROTOCOL))
        assert await line.heard() == Status()
        assert kept(Channel) == before + 1
        line.say(Call(1, "Served.upgrade", msgspec.Raw(b"\x90")))
        await eventually(lambda: upgrading.said)
        line.say(Status())  # which no caller says
        while await line.heard():
            pass
        assert logged.pop()["event"] == "link_message_refused"
        upgrading.may_end.set()
        line.close()
        await eventually(lambda: kept(Channel) == before)
    assert upgrading.said == ["began", "ended"]


class Hearing:
    """A caller that notes when it hears a status."""

    def __init__(self) -> None:
        self.channel = self
        self.is_done = asyncio.Event()
        self.told: list[tuple[float, Status]] = []

    def send(self, status: Status) -> None:
        self.told.append((now(), status))


@in_virtual_time
async def test_a_store_tells_a_change_soon_and_says_often_enough_that_it_lives() -> None:
    full, callers = Status(detail={"undelivered": 3}), (Hearing(), Hearing())
    upgrading = Upgrading(asyncio.Event())
    server = LinkServer([ServedPart(Served, upgrading)], lambda: full if now() > 50 else Status())
    for each in callers:
        server.greeted(cast("Any", each))
    server.start(cast("Any", callers[0]), Call(1, "Served.upgrade", msgspec.Raw(b"\x90")))
    telling = asyncio.create_task(server.tell_status())
    await asyncio.sleep(100)
    telling.cancel()
    for each in callers:
        times = [at for at, _ in each.told]
        silence = max(after - before for before, after in pairwise([*times, 100.0]))
        assert silence < LinkPolicy().silence_seconds / 2
        assert next(at for at, status in each.told if status == full) < 50.5
        are_full = [status == full for _, status in each.told]
        assert are_full == sorted(are_full)  # nothing from before is told again
        assert len(times) <= 103  # and nothing at each look
    await server.close()
    assert now() == 110  # for ten seconds it waits for the callers' last calls, and for all calls
    upgrading.may_end.set()
    for each in callers:
        server.disconnected(cast("Any", each))


async def test_a_front_that_does_not_read_holds_up_nobody_and_is_answered_once_it_does(
    short_path: Path, store: Outbox, remote: RemoteOutbox
) -> None:
    stored, sent = event(size=1_000_000), event()
    await store.intake.append(stored)
    reader, writer = await asyncio.open_unix_connection(short_path / "store")
    line, answered = Line(reader, writer), set[int]()
    line.say(Hello(PROTOCOL))
    for number in range(50):
        arguments = msgspec.msgpack.encode([stored.id])
        line.say(Call(number, "Inspector.payload", msgspec.Raw(arguments)))
    transport: asyncio.Transport = writer.transport  # type: ignore[assignment]
    await eventually(lambda: not transport.is_reading())  # the first answer is too much for it
    assert (await remote.intake.append(sent)).event_id == sent.id
    large = msgspec.msgpack.encode(["x" * 8_000_000])
    line.say(Call(50, "Inspector.payload", msgspec.Raw(large)))
    for _ in range(20):
        assert await remote.inspector.payload(stored.id) == stored.payload
    assert transport.get_write_buffer_size()  # nothing more is read of it meanwhile
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(answered) < 51:
            if isinstance(one := await line.heard(), Result):
                answered.add(one.number)
    line.close()


FORMS = [
    (Hello(PROTOCOL), [8, 1]),
    (Call(1, "stats", msgspec.Raw(b"\x90")), [0, 1, "stats", []]),
    (Result(1, msgspec.Raw(b"\x90")), [1, 1, []]),
    (Fault(1, "OutboxFullError", "Full.", 5), [2, 1, "OutboxFullError", "Full.", 5]),
    (
        Status("Full.", 2, ("a",), {"b": 3}, InngestAddress("http://e", "http://a", "key", "x"),
        InngestIds(b"six")),
        [3, "Full.", 2, ["a"], {"b": 3}, {"event_api_origin": "http://e",
        "api_origin": "http://a", "event_key": "key", "environment": "x"},
        {"prefix": b"six", "since": 0, "earlier": []}],
    ),
    (Closing(), [4]),
    (Goodbye(), [5]),
    (
        Appends([NewEvent(1, Event("e", "a/b", "o", "u", 2, b"{}"), IdempotencyKey("k", b"d"))]),
        [6, [[1, {"id": "e", "name": "a/b", "owner": "o", "user_id": "u", "accepted_at_ms": 2,
        "payload": b"{}", "meta": {}}, {"key": "k", "digest": b"d", "lifetime_seconds": None,
        "earlier": []}]]],
    ),
    (
        Receipts([(1, Receipt("e", 2, 3, InngestIds(b"six")))]),
        [7, [[1, {"event_id": "e", "seq": 2, "accepted_at_ms": 3,
        "ids": {"prefix": b"six", "since": 0, "earlier": []}}]]],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("message", "form"), FORMS, ids=lambda one: type(one).__name__)
def test_messages_have_the_form_of_their_version(message: object, form: list[object]) -> None:
    """Another form needs another PROTOCOL: in an upgrade both versions speak to each other."""
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(message)) == form
    assert PROTOCOL == 1


async def test_large_calls_and_large_answers_at_once_do_not_wait_for_each_other(
    remote: RemoteOutbox,
) -> None:
    stored, *sent = (event(size=1_000_000) for _ in range(65))
    await remote.intake.append(stored)
    asked = [asyncio.ensure_future(remote.inspector.payload(stored.id)) for _ in sent]
    await asyncio.sleep(0.01)  # the answers are under way
    receipts = await asyncio.gather(*map(remote.intake.append, sent))
    payloads = await asyncio.gather(*asked)
    assert payloads == [stored.payload] * len(sent)
    assert [receipt.event_id for receipt in receipts] == [each.id for each in sent]


async def test_events_of_one_turn_share_messages_that_are_bounded(listening: socket.socket) -> None:
    arrived: asyncio.Queue[Appends] = asyncio.Queue()

    async def take(line: Line) -> None:
        while message := await line.heard():
            assert isinstance(message, Appends)
            arrived.put_nowait(message)

    patient = LinkPolicy(patience_seconds=PATIENCE_SECONDS, silence_seconds=PATIENCE_SECONDS)
    async with front_of(listening, take, patient) as remote:
        sent = [event() for _ in range(20)] + [event(size=700_000) for _ in range(4)]
        later = [event() for _ in range(20)]
        posts = [asyncio.create_task(remote.intake.append(each)) for each in sent]
        messages = [await arrived.get() for _ in range(2)]
        posts += [asyncio.create_task(remote.intake.append(each)) for each in later]
        assert [one.event for one in (await arrived.get()).events] == later
        for post in posts:
            post.cancel()
    assert [one.event for each in messages for one in each.events] == sent
    assert all(sum(len(one.event.payload) for one in each.events) < 2**21 for each in messages)


async def test_a_change_of_a_scope_is_seen_by_every_front(
    short_path: Path, remote: RemoteOutbox
) -> None:
    async with front(short_path / "store", PATIENT) as there:
        before_here, before_there = remote.scopes.scope_revision, there.scopes.scope_revision
        await remote.scopes.save_scope("user", "u-1", {"a": 1})
        assert remote.scopes.scope_revision > before_here
        await eventually(lambda: there.scopes.scope_revision > before_there)
        assert await there.scopes.load_scope("user", "u-1") == {"a": 1}


GARBAGE = {
    "too large": b"\4\0\0\1",
    "HTTP": b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
    "text": b"\0\0\0\5hello",
    "a part": b"\0\0\0\2\x92\x08",
    "no greeting": b"\0\0\0\2\x91\x05",
    "no UTF-8": b"\0\0\0\6\x94\x00\x01\xa1\xff\xc0",
    "deep": b"\0\0\x75\x30\x94\x00\x01\xa1x" + b"\x91" * 30_000,
}


async def test_garbage_ends_its_connection_only_and_logs_no_traceback(
    short_path: Path, remote: RemoteOutbox, logged: list[Any]
) -> None:
    for name, sent in GARBAGE.items():
        assert await answered(short_path / "store", sent) == b"", name
        assert [line.pop("reason", "") != "" for line in logged] == [True], name
        assert logged.pop() == {"event": "link_message_refused", "log_level": "warning"}, name
    assert (await remote.inspector.stats()).pending == 0


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("Inspector.rows", b"\x91\xa1\xff"),
        ("Inspector.rows", b"\x91\x01"),
        ("Inspector.of_the_next_version", b"\x90"),
    ],
    ids=["no UTF-8", "no filter", "no such method"],
)
async def test_a_call_that_is_not_understood_gets_a_fault_and_logs_no_traceback(
    short_path: Path,
    listening: socket.socket,
    store: Outbox,
    method: str,
    arguments: bytes,
    logged: list[Any],
) -> None:
    async with served(listening.dup(), store), asyncio.timeout(PATIENCE_SECONDS):
        line = await caller(short_path / "store")
        line.say(Hello(PROTOCOL))
        line.say(Call(1, method, msgspec.Raw(arguments)))
        while isinstance(fault := await line.heard(), Status):
            pass
        line.close()
    unavailable = OutboxUnavailableError()
    assert fault == Fault(1, "OutboxUnavailableError", str(unavailable), 1)
    assert logged.pop() == {"event": "unknown_call", "log_level": "warning", "method": method}


async def test_a_process_that_stores_no_events_takes_none(
    short_path: Path, listening: socket.socket, logged: list[Any]
) -> None:
    sent = message(Hello(PROTOCOL)) + message(Appends([NewEvent(1, event(), None)]))
    async with serve_link(listening, [], Status):
        await answered(short_path / "store", sent)
    told = {"event": "link_message_refused", "log_level": "warning"}
    assert logged.pop() == {**told, "reason": "an event for a process that stores none"}


async def test_an_unknown_version_of_the_protocol_gets_a_sentence(
    short_path: Path, listening: socket.socket, store: Outbox
) -> None:
    async with served(listening.dup(), store):
        for version in (PROTOCOL - 1, PROTOCOL + 1):
            answer = await answered(short_path / "store", message(Hello(version)))
            fault = msgspec.msgpack.decode(answer[4:], type=Fault)
            words = f"The service speaks version 1 of its link, the caller version {version}."
            assert fault == Fault(0, "OutboxUnavailableError", words, 2)


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
        OutboxUnavailableError(retry_after_seconds=0),
        OutboxUnavailableError("The disk is full.", retry_after_seconds=9),
        TooManyPendingError(retry_after_seconds=5),
        OutboxFullError("No room.", retry_after_seconds=5),
        IdempotencyKeyReusedError(),
        EventLeftError(),
        SchemaTooNewError(),
        OutboxError("The outbox can't do that."),
        RefusedError("That is refused."),
        ValueError("the events of one call are of one owner"),
    ],
)
def test_an_error_of_the_store_arrives_as_it_was(error: Exception) -> None:
    assert told_by(from_fault(to_fault(1, error))) == told_by(error)


def test_an_error_that_is_not_the_stores_own_is_logged_here_and_unavailability_there(
    logged: list[Any],
) -> None:
    error = ZeroDivisionError("secret")
    arrived = from_fault(to_fault(1, error))
    assert logged.pop() == {"event": "call_failed", "log_level": "error", "exc_info": error}
    for told, meant in (
        (arrived, OutboxUnavailableError()),
        (from_fault(Fault(1, "OfTheNextVersion", "", None)), OutboxUnavailableError()),
        (
            from_fault(Fault(1, "OfTheNextVersion", "Wait.", 7)),
            OutboxUnavailableError("Wait.", retry_after_seconds=7),
        ),
        (from_fault(to_fault(1, UnicodeError("of the caller"))), ValueError("of the caller")),
    ):
        assert told_by(told) == told_by(meant)


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
    wire = Wire()
    channel.connection_made(wire)
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        channel.data_received(stream[:cut])
        stream = stream[cut:]
    assert kept.messages == messages
    channel.data_received((64 * 1024**2).to_bytes(4, "big"))  # the largest one begins
    channel.close()
    assert wire.is_closed
    assert not wire.is_aborted  # what was sent has time to leave
    channel.abort()
    assert wire.is_aborted  # what was not sent yet is dropped
    channel.connection_lost(None)
    channel.close()  # nothing is left to be closed


def told_by(error: BaseException) -> tuple[object, ...]:
    return type(error), str(error), vars(error)


def message(body: object) -> bytes:
    encoded = msgspec.msgpack.encode(body)
    return len(encoded).to_bytes(4, "big") + encoded
