"""The PostgreSQL store, loaded where an address names it: its driver takes a tenth of a start.

The invariant: a process that serves loads it before it is ready, so that it runs one version.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from service.outbox.postgres.store import PostgresOutbox
    from service.outbox.postgres.transfer import PostgresTransfer


def load_postgres() -> None:
    """Load the store. Safe to repeat."""
    import service.outbox.postgres.store  # noqa: F401


def open_postgres_outbox(url: str, **limits: Any) -> AbstractAsyncContextManager[PostgresOutbox]:
    """The outbox at `url`, migrated to this code's schema. Raises OutboxError."""
    from service.outbox.postgres.store import open_postgres_outbox

    return open_postgres_outbox(url, **limits)


def open_postgres_operations(url: str) -> AbstractAsyncContextManager[PostgresOutbox]:
    """The outbox at `url` for an operator's command; changes no schema. Raises OutboxError."""
    from service.outbox.postgres.store import open_postgres_operations

    return open_postgres_operations(url)


def open_postgres_transfer(url: str) -> AbstractContextManager[PostgresTransfer]:
    """The outbox at `url` for a move, migrated. Raises OutboxUnavailableError."""
    from service.outbox.postgres.transfer import open_postgres_transfer

    return open_postgres_transfer(url)
