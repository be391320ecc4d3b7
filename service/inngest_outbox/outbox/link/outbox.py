"""The outbox of a front process: its parts are those of the process that owns it.

The promises of the ports hold: a call returns after the store's own call has returned.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

from inngest_outbox.identity.scopes import Scopes
from inngest_outbox.outbox.link.messages import Status
from inngest_outbox.outbox.link.methods import Method, methods_of
from inngest_outbox.outbox.link.store_link import LinkPolicy, StoreLink
from inngest_outbox.outbox.ports import AuditTrail, Inspector, Intake, Positions, Repairs, Samples
from inngest_outbox.supervisor import Supervisor


class RemoteOutbox:
    """The parts that requests need, over `link`."""

    def __init__(self, link: StoreLink) -> None:
        self._link = link
        # Grows with every save that the store tells of, and with every new connection.
        revision = property(lambda _: link.scope_revision)
        self.intake = cast("Intake", remote(Intake, link, append=staticmethod(link.append)))
        self.inspector = cast("Inspector", remote(Inspector, link))
        self.repairs = cast("Repairs", remote(Repairs, link))
        self.positions = cast("Positions", remote(Positions, link))
        self.samples = cast("Samples", remote(Samples, link))
        self.trail = cast("AuditTrail", remote(AuditTrail, link))
        self.scopes = cast("Scopes", remote(Scopes, link, scope_revision=revision))

    @property
    def status(self) -> Status:
        """The state of the store process."""
        return self._link.status


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


def remote(port: type, link: StoreLink, called: str | None = None, **own: object) -> object:
    """An implementation of `port` whose methods are calls over `link`, but for its `own` members.

    In calls the port is `called` so, by default by its own name.
    """
    calls = {name: _calling(link, one) for name, one in methods_of(port, called).items()}
    return type(f"Remote{port.__name__}", (), {**calls, **own})()


def _calling(link: StoreLink, method: Method) -> Callable[..., Awaitable[object]]:
    async def call(_: object, *given: object, **named: object) -> object:
        return await link.call(method, method.positional(given, named))

    return call
