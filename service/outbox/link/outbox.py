"""The outbox of a front process: its parts are those of the store process.

The promises of the ports hold: a call returns after the store's own call has returned.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

from service.identity.scopes import Scopes, Tree
from service.outbox.link.messages import Status
from service.outbox.link.methods import Method, methods_of
from service.outbox.link.store_link import LinkPolicy, StoreLink
from service.outbox.operator_ports import AuditTrail, Positions, Samples
from service.outbox.ports import Inspector, Intake, Repairs
from service.supervisor import Supervisor


class RemoteOutbox:
    """The parts that requests need. Made by `open_remote_outbox`."""

    def __init__(self, link: StoreLink) -> None:
        self._link = link
        self.intake = cast("Intake", _remote(Intake, link, append=link.append))
        self.inspector = cast("Inspector", _remote(Inspector, link))
        self.repairs = cast("Repairs", _remote(Repairs, link))
        self.positions = cast("Positions", _remote(Positions, link))
        self.samples = cast("Samples", _remote(Samples, link))
        self.trail = cast("AuditTrail", _remote(AuditTrail, link))
        self.settings = RemoteScopes(link)

    @property
    def status(self) -> Status:
        """How the store process is."""
        return self._link.status

    @property
    def failure(self) -> str | None:
        """Why events can't be stored now, None while they can."""
        return self._link.status.failure

    @property
    def undelivered(self) -> int:
        """How many rows are pending or delivering, lately."""
        return self._link.status.undelivered


class RemoteScopes:
    """The stored settings of users and organizations."""

    def __init__(self, link: StoreLink) -> None:
        self._link = link
        self._scopes = cast("Scopes", _remote(Scopes, link))

    @property
    def scope_revision(self) -> int:
        """Grows with every save that the store tells of, and with every new connection."""
        return self._link.settings_revision

    async def load_scope(self, scope: str, scope_id: str) -> Tree | None:
        """The object, None when never set."""
        return await self._scopes.load_scope(scope, scope_id)

    async def save_scope(self, scope: str, scope_id: str, settings: Tree) -> None:
        """Replace the object; durable on return."""
        await self._scopes.save_scope(scope, scope_id, settings)


@contextlib.asynccontextmanager
async def open_remote_outbox(
    path: str, supervisor: Supervisor, policy: LinkPolicy | None = None
) -> AsyncIterator[RemoteOutbox]:
    """The outbox of the store process that listens at `path`.

    Waits for the store for as long as a call does; while it is away calls raise
    OutboxUnavailableError.
    """
    link = StoreLink(path, policy)
    supervisor.watch("store-link", link.run)
    try:
        await link.wait()
        yield RemoteOutbox(link)
    finally:
        await supervisor.stop("store-link")


def _remote(port: type, link: StoreLink, **own: Callable[..., Awaitable[object]]) -> object:
    """An implementation of `port` whose methods are calls to the store process, but for `own`."""
    calls = {name: _calling(link, method) for name, method in methods_of(port).items()}
    special = {name: staticmethod(function) for name, function in own.items()}
    return type(f"Remote{port.__name__}", (), {**calls, **special})()


def _calling(link: StoreLink, method: Method) -> Callable[..., Awaitable[object]]:
    async def call(_: object, *given: object, **named: object) -> object:
        return await link.call(method, method.positional(given, named))

    return call
