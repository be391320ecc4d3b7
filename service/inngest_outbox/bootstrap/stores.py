"""The store that OUTBOX_URL names, and the link by which other processes reach it."""

from __future__ import annotations

import contextlib
import functools
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import structlog

from inngest_outbox.config.settings import Settings
from inngest_outbox.console.operations.actions import (
    AuditedScopes,
    OperatorActions,
    SessionSignOuts,
    SignOuts,
)
from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.identity.scopes import Scopes
from inngest_outbox.identity.user import EVENT_KEY_ISSUER, User
from inngest_outbox.observe.recorder import NullRecorder, Recorder
from inngest_outbox.outbox.event import Event, Meta
from inngest_outbox.outbox.link.messages import Status
from inngest_outbox.outbox.link.served import COMMANDS, OneProcess, Served, outbox_at
from inngest_outbox.outbox.link.server import ServedPart, parts_of, serve_link
from inngest_outbox.outbox.link.socket_folder import service_socket
from inngest_outbox.outbox.parts import StoreParts
from inngest_outbox.outbox.ports import Confirmations, Delivery, Queue, Repairs
from inngest_outbox.outbox.sqlite.file.disk import loss_of_volume
from inngest_outbox.outbox.sqlite.store import open_sqlite_outbox
from inngest_outbox.outbox.sqlite.timings import WriterTimings

if TYPE_CHECKING:
    from inngest_outbox.journal.desk import JournalDesk
    from inngest_outbox.outbox.postgres.store import PostgresOutbox

log = structlog.get_logger(__name__)


class StoredScopes(Scopes, AuditedScopes, Protocol):
    """The small values of users and organizations."""


class Outbox(StoreParts, Protocol):
    """All parts of one store."""

    @property
    def scopes(self) -> StoredScopes:
        """Small stored values, which operators change too."""
        ...

    @property
    def queue(self) -> Queue:
        """The events that the relay claims."""
        ...

    @property
    def delivery(self) -> Delivery:
        """The delivery record."""
        ...

    @property
    def confirmations(self) -> Confirmations:
        """Rows that Inngest has answered."""
        ...

    @property
    def journal(self) -> JournalDesk | None:
        """The journal, None without one."""
        ...


@contextlib.asynccontextmanager
async def open_outbox(
    settings: Settings,
    *,
    recorder: Recorder | None = None,
    socket: str | None = None,
    timings: WriterTimings | None = None,
) -> AsyncIterator[Outbox]:
    """The outbox of this process; of SQLite its only writer, which `socket` reaches.

    PostgreSQL's driver takes a tenth of a start, so it is loaded where an address names it. Raises
    OutboxBusyError, SchemaTooNewError or OutboxUnavailableError.
    """
    limits: dict[str, Any] = {
        "max_pending": settings.max_pending,
        "max_pending_per_user": settings.max_pending_per_user,
        "max_bytes": settings.max_bytes,
        "max_bytes_per_user": settings.max_bytes_per_user,
        "recorder": recorder or NullRecorder(),
    }
    shared = frozenset(User(EVENT_KEY_ISSUER, name).owner for name in settings.event_ids_shared)
    path = settings.sqlite_path
    if path is None:
        from inngest_outbox.outbox.postgres.store import open_postgres_outbox

        async with open_postgres_outbox(
            settings.store_url, read_event=read_event, shared_ids=shared, **limits
        ) as postgres:
            yield postgres
    else:
        opening = functools.partial(
            open_sqlite_outbox,
            Path(path),
            **limits,
            socket=socket,
            timings=timings,
            accepts_loss=settings.accepts_loss,
            shared_ids=shared,
        )
        if settings.journal is None:
            async with opening() as sqlite:
                yield sqlite
        else:
            from inngest_outbox.bootstrap.journal import open_journalled

            async with open_journalled(settings, limits["recorder"], opening) as sqlite:
                yield sqlite


@contextlib.asynccontextmanager
async def open_served_outbox(
    settings: Settings,
    recorder: Recorder,
    *,
    status: Callable[[Outbox], Status],
    listening: socket.socket | None = None,
    must_store: bool = False,
    timings: WriterTimings | None = None,
) -> AsyncIterator[Outbox]:
    """The outbox of a process that serves. Others reach it by the link while it is open.

    They connect to `listening`; None makes a socket for commands. `status` gives what they learn.
    `timings` are those of an SQLite outbox. Raises what `open_outbox` raises; with `must_store`
    also OutboxUnavailableError where no event can be stored, before a process is served.
    """
    path = settings.sqlite_path
    if path is not None and not settings.journal and (fault := loss_of_volume(Path(path))):
        log.warning("outbox_may_be_lost", reason=fault)
    async with contextlib.AsyncExitStack() as stack:
        own = listening or stack.enter_context(service_socket(outbox_at(settings.store_url)))
        address = own.getsockname() if own else None
        opening = open_outbox(settings, recorder=recorder, socket=address, timings=timings)
        outbox = await stack.enter_async_context(opening)
        if must_store and outbox.failure:
            raise OutboxUnavailableError(outbox.failure)
        if own:
            parts = _parts(outbox, recorder)
            if outbox.journal:
                from inngest_outbox.journal.desk import JournalDesk

                parts.append(ServedPart(JournalDesk, outbox.journal))
            if listening is None:
                parts.append(ServedPart(Served, OneProcess()))
            serving = serve_link(own, parts, lambda: status(outbox), outbox.intake)
            await stack.enter_async_context(serving)
        yield outbox


async def refuse_appends(outbox: Outbox, settings: Settings) -> None:
    """Have `outbox.append` refuse the events whose type declares `encrypt`: SQL can't encrypt them.

    SQLite has no such function. Raises OutboxUnavailableError.
    """
    if settings.sqlite_path is not None:
        return
    names: list[str] = []
    if settings.encryption_keys:
        from inngest_outbox.event_types.types_file import load_event_types

        types = load_event_types(settings.event_types_file)
        names = [one.name for one in types if one.encrypt]
    await cast("PostgresOutbox", outbox).scopes.refuse_appends(names)


def _parts(outbox: Outbox, recorder: Recorder) -> list[ServedPart]:
    """The parts that fronts call, and those that commands call: these log and count."""
    return [
        *parts_of(outbox),
        ServedPart(Repairs, OperatorActions(outbox.repairs, recorder), COMMANDS),
        ServedPart(SignOuts, SessionSignOuts(outbox.scopes, logged=True)),
    ]


def read_event(body: bytes, user: User, now_ms: int, *, meta: Meta) -> Event:
    """The event that an application appended in SQL, read as the doors read one.

    Raises ValueError for one that Inngest would refuse.
    """
    from inngest_outbox.web.intake.incoming import read_events

    [found] = filter(None, read_events(body, user, now_ms, meta=meta))
    return found.event
