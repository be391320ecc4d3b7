"""The PostgreSQL store, loaded where an address names it: its driver takes a tenth of a start.

The invariant: a process that serves loads it before it is ready, so that it runs one version.
"""

from __future__ import annotations

import importlib
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from service.outbox.postgres.store import PostgresOutbox
    from service.outbox.postgres.transfer import PostgresTransfer

_STORE = "service.outbox.postgres.store"
_TRANSFER = "service.outbox.postgres.transfer"


def open_postgres_outbox(url: str, **limits: Any) -> AbstractAsyncContextManager[PostgresOutbox]:
    """The outbox at `url`, migrated to this code's schema. Raises OutboxError."""
    opened = importlib.import_module(_STORE).open_postgres_outbox(url, **limits)
    return cast("AbstractAsyncContextManager[PostgresOutbox]", opened)


def open_postgres_operations(url: str) -> AbstractAsyncContextManager[PostgresOutbox]:
    """The outbox at `url` for an operator's command; changes no schema. Raises OutboxError."""
    opened = importlib.import_module(_STORE).open_postgres_operations(url)
    return cast("AbstractAsyncContextManager[PostgresOutbox]", opened)


def open_postgres_transfer(url: str) -> AbstractContextManager[PostgresTransfer]:
    """The outbox at `url` for a move, migrated. Raises OutboxUnavailableError."""
    opened = importlib.import_module(_TRANSFER).open_postgres_transfer(url)
    return cast("AbstractContextManager[PostgresTransfer]", opened)
