"""Which store OUTBOX_URL names."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import structlog

from service.bootstrap.postgres import open_postgres_outbox
from service.bootstrap.web_outbox import WebOutbox, store_faults
from service.config.settings import Settings
from service.console.operations.actions import OperatorActions
from service.console.operations.control_server import serve_control_socket
from service.console.operations.sign_outs import AuditedScopes, LoggedSignOuts, SessionSignOuts
from service.identity.scopes import Scopes
from service.observe.recorder import NullRecorder, Recorder
from service.outbox.link.socket_folder import control_address
from service.outbox.parts import StoreParts
from service.outbox.ports import Confirmations, Delivery, Queue
from service.outbox.sqlite.store import open_sqlite_outbox
from service.outbox.sqlite.timings import WriterTimings
from service.outbox.sqlite.volume import loss_of_volume

log = structlog.get_logger(__name__)


class StoredSettings(Scopes, AuditedScopes, Protocol):
    """The small values of users and organizations."""


class Outbox(StoreParts, WebOutbox, Protocol):
    """All parts of one store."""

    @property
    def settings(self) -> StoredSettings:
        """The stored settings, which operators change too."""
        ...

    @property
    def queue(self) -> Queue:
        """Where the relay takes events from."""
        ...

    @property
    def delivery(self) -> Delivery:
        """The delivery record."""
        ...

    @property
    def confirmations(self) -> Confirmations:
        """Rows that Inngest has answered."""
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

    Raises OutboxBusyError, SchemaTooNewError or OutboxUnavailableError.
    """
    limits: dict[str, Any] = {
        "max_pending": settings.max_pending,
        "max_pending_per_user": settings.max_pending_per_user,
        "max_bytes": settings.max_bytes,
        "max_bytes_per_user": settings.max_bytes_per_user,
    }
    path = settings.sqlite_path
    if path is None:
        async with open_postgres_outbox(
            settings.store_url, **limits, recorder=recorder or NullRecorder()
        ) as postgres:
            yield postgres
    else:
        async with open_sqlite_outbox(
            Path(path),
            **limits,
            socket=socket,
            recorder=recorder,
            timings=timings,
        ) as sqlite:
            yield sqlite


@contextlib.asynccontextmanager
async def open_served_outbox(
    settings: Settings, recorder: Recorder, timings: WriterTimings | None = None
) -> AsyncIterator[Outbox]:
    """The outbox of a process that serves: operators' commands reach it while it is open.

    `timings` are those of an SQLite outbox.

    Raises what `open_outbox` raises.
    """
    if settings.sqlite_path is None:
        async with open_outbox(settings, recorder=recorder) as outbox:
            yield outbox
        return
    if fault := loss_of_volume(Path(settings.sqlite_path)):
        log.warning("outbox_may_be_lost", reason=fault)
    recorder.gauge("notify_ok", 1.0)  # one process needs no notifications
    with control_address() as address:
        async with contextlib.AsyncExitStack() as stack:
            outbox = await stack.enter_async_context(
                open_outbox(settings, recorder=recorder, socket=address, timings=timings)
            )
            if address:
                actions = OperatorActions(outbox.repairs, recorder)
                sign_outs = LoggedSignOuts(SessionSignOuts(outbox.settings))
                control = serve_control_socket(
                    address, actions, lambda: store_faults(outbox), sign_outs
                )
                await stack.enter_async_context(control)
            yield outbox
