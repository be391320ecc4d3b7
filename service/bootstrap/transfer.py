"""Moving an outbox from one store to another: which classes the two addresses name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from service.bootstrap.postgres import open_postgres_transfer
from service.config.outbox_url import sqlite_path
from service.errors import OutboxMoveError, OutboxUnavailableError
from service.outbox.move.move import Moved, move
from service.outbox.move.transfer import TransferStore
from service.outbox.schema import migrate, pending
from service.outbox.sqlite.transfer import open_sqlite_transfer


def move_outbox(
    source_url: str, target_url: str, *, actor: str, progress: Callable[[int, int], None]
) -> Moved:
    """Move everything from `source_url` to `target_url`, which is made and migrated where needed.

    Raises OutboxMoveError, SchemaTooNewError, OutboxUnavailableError.
    """
    if source_url == target_url:
        raise OutboxMoveError("The source and the target are the same outbox.")
    if pending(source_url):
        raise OutboxUnavailableError("There is no outbox at the source, or it is to be migrated.")
    migrate(target_url)
    with _transfer(source_url) as source, _transfer(target_url) as target:
        return move(source, target, actor=actor, progress=progress)


@contextlib.contextmanager
def _transfer(url: str) -> Iterator[TransferStore]:
    path = sqlite_path(url)
    if path is not None:
        with open_sqlite_transfer(path) as sqlite:
            yield sqlite
    else:
        with open_postgres_transfer(url) as postgres:
            yield postgres
