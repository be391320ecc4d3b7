"""The service on an outbox, found by its socket, and its upgrade.

`outbox upgrade` finds a service by its outbox, on SQLite and on PostgreSQL. The process that
listens for requests answers, the parent where there are several.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol, cast

from inngest_outbox.config.outbox_url import redacted_url, sqlite_file
from inngest_outbox.errors import OutboxUnavailableError, UpgradeError
from inngest_outbox.outbox.link.outbox import remote
from inngest_outbox.outbox.link.socket_folder import sockets_of_services
from inngest_outbox.outbox.link.store_link import LinkPolicy, open_link

COMMANDS = "Commands"  # `Repairs` in calls of commands, which a service logs and counts
ONE_PROCESS = (
    "One process is not upgraded while it runs: its supervisor restarts it, as in "
    "`systemctl restart inngest-outbox`. Nothing is changed."
)
COMMAND_POLICY = LinkPolicy(
    patience_seconds=5.0,
    closing_patience_seconds=5.0,
    away="The service holds the outbox, but its socket does not answer.",
    lost="The service has not answered. The command may still be carried out.",
)


class Served(Protocol):
    """A service that runs."""

    async def upgrade(self) -> None:
        """Replace its processes by the version that is installed now; returns when that serves.

        Raises UpgradeError, which says which version serves.
        """
        ...


class OneProcess:
    """`Served` by one process."""

    async def upgrade(self) -> None:
        """Refuse: its supervisor restarts it."""
        raise UpgradeError(ONE_PROCESS)


@contextlib.asynccontextmanager
async def running_service(url: str) -> AsyncIterator[Served]:
    """The one service of this user, on this machine, on the outbox at `url`.

    Raises OutboxUnavailableError without one, with several, and where it does not answer.
    """
    found = sockets_of_services(outbox_at(url))
    if len(found) != 1:
        count = f"{len(found)} services run" if found else "No service runs"
        raise OutboxUnavailableError(
            f"{count} on this outbox, on this machine and as this user (OUTBOX_URL or --url)."
        )
    async with open_link(str(found[0]), COMMAND_POLICY) as link:
        yield cast("Served", remote(Served, link))


def outbox_at(url: str) -> str:
    """The outbox at `url`, however its address is written."""
    file = sqlite_file(url)
    return redacted_url(url) if file is None else str(Path(file).resolve())
