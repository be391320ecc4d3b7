"""An outbox that is used as a front process uses it: over a socket, in the contract suite."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import msgspec

from inngest_outbox.bootstrap.store_part import store_status
from inngest_outbox.bootstrap.stores import Outbox, StoredScopes
from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.outbox.link.messages import Status, ToCaller, ToOwner
from inngest_outbox.outbox.link.outbox import RemoteOutbox, open_remote_outbox
from inngest_outbox.outbox.link.server import parts_of, serve_link
from inngest_outbox.outbox.link.store_link import LinkPolicy
from inngest_outbox.outbox.ports import (
    AuditTrail,
    Confirmations,
    Delivery,
    Inspector,
    Intake,
    Positions,
    Queue,
    Repairs,
    Samples,
)
from inngest_outbox.supervisor import run_supervisor
from tests.support.storage import SqliteStorage


class RemoteStorage(SqliteStorage):
    """An SQLite outbox behind a store process' socket."""

    @contextlib.asynccontextmanager
    async def open(self, **limits: int) -> AsyncIterator[Outbox]:
        async with super().open(**limits) as store, remote_outbox(store) as remote:
            yield _Mixed(remote, store)


@contextlib.asynccontextmanager
async def remote_outbox(store: Outbox) -> AsyncIterator[RemoteOutbox]:
    """`store` as a front process sees it."""
    with tempfile.TemporaryDirectory() as folder, unix_socket(Path(folder) / "s") as listening:
        async with served(listening, store), front(Path(folder) / "s") as remote:
            yield remote


@contextlib.asynccontextmanager
async def front(path: Path, policy: LinkPolicy | None = None) -> AsyncIterator[RemoteOutbox]:
    """The outbox of a front process whose store process listens at `path`."""
    async with (
        run_supervisor(NullRecorder()) as supervisor,
        open_remote_outbox(str(path), supervisor, policy) as remote,
    ):
        yield remote


@contextlib.asynccontextmanager
async def served(listening: socket.socket, store: Outbox) -> AsyncIterator[None]:
    """`store` at the socket, as a store process serves it."""
    parts = parts_of(store)
    async with serve_link(listening, parts, lambda: status_of(store), store.intake):
        yield


def status_of(store: Outbox) -> Status:
    """The state of a store process without a relay."""
    return store_status(store, None, [])


@contextlib.contextmanager
def unix_socket(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bound:
        bound.bind(str(path))
        bound.listen()
        yield bound


class Line:
    """One end of a connection of the link, message by message."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.close = writer.close

    def say(self, message: msgspec.Struct) -> None:
        body = msgspec.msgpack.encode(message)
        self._writer.write(len(body).to_bytes(4, "big") + body)

    async def heard(self) -> msgspec.Struct | None:
        """The next message, None when the connection has ended."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            size = int.from_bytes(await self._reader.readexactly(4), "big")
            return _decode(await self._reader.readexactly(size))
        return None


@contextlib.asynccontextmanager
async def scripted_store(
    listening: socket.socket, script: Callable[[Line], Awaitable[None]]
) -> AsyncIterator[None]:
    """A store process that says it is there, then follows `script` with each front."""

    async def follow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(Line(reader, writer)) as line:
            line.say(Status())
            await line.heard()  # the greeting
            await script(line)

    server = await asyncio.start_unix_server(follow, sock=listening)
    yield
    server.close()


async def caller(path: Path) -> Line:
    """A connection to the store process that listens at `path`, before its greeting."""
    return Line(*await asyncio.open_unix_connection(path))


_decode = msgspec.msgpack.Decoder(ToOwner | ToCaller).decode


class _Settings:
    """Operators' commands change the store itself."""

    def __init__(self, remote: RemoteOutbox, store: Outbox) -> None:
        self._remote = remote.scopes
        self.load_scope = remote.scopes.load_scope
        self.save_scope = remote.scopes.save_scope
        self.save_audited = store.scopes.save_audited

    @property
    def scope_revision(self) -> int:
        return self._remote.scope_revision


class _Mixed:
    """What requests use is remote; what delivers is the store's own."""

    def __init__(self, remote: RemoteOutbox, store: Outbox) -> None:
        self.intake: Intake = remote.intake
        self.inspector: Inspector = remote.inspector
        self.repairs: Repairs = remote.repairs
        self.positions: Positions = remote.positions
        self.samples: Samples = remote.samples
        self.trail: AuditTrail = remote.trail
        self.scopes: StoredScopes = _Settings(remote, store)
        self.queue: Queue = store.queue
        self.delivery: Delivery = store.delivery
        self.confirmations: Confirmations = store.confirmations
        self._store = store

    @property
    def failure(self) -> str | None:
        return self._store.failure

    @property
    def undelivered(self) -> int:
        return self._store.undelivered
