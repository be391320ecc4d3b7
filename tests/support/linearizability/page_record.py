"""The record of purges: a purge is done page by page, and each page at one moment."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.ports import Repairs
from inngest_outbox.outbox.postgres.repairs import PostgresRepairs
from inngest_outbox.outbox.sqlite.repairs import PurgedPage, SqliteRepairs
from tests.support.linearizability.record import Recorder


def record_pages(repairs: Repairs, recorder: Recorder) -> None:
    """Record each page that these repairs remove themselves."""
    if isinstance(repairs, SqliteRepairs):
        _record_on_sqlite(repairs, recorder)
    elif isinstance(repairs, PostgresRepairs):
        _record_on_postgres(repairs, recorder)


def _record_on_sqlite(repairs: SqliteRepairs, recorder: Recorder) -> None:
    purger = repairs.purge.__self__
    remove = purger.purge_page

    async def recorded(after_seq: int, older_than_seconds: float) -> PurgedPage:
        def act() -> Awaitable[PurgedPage]:
            return remove(after_seq, older_than_seconds)

        page = await recorder.call("page", after_seq, act, lambda page: page.removed)
        if page is None:
            raise OutboxUnavailableError
        return page

    purger.purge_page = recorded  # type: ignore[method-assign]


def _record_on_postgres(repairs: PostgresRepairs, recorder: Recorder) -> None:
    """A page whose answer was lost is removed again, so each run of the statement is recorded."""
    executor = repairs._pool._executor
    execute = executor._execute

    async def recorded(deadline: float, statement: Any, given: Any, **how: Any) -> Any:
        def act() -> Awaitable[Any]:
            return execute(deadline, statement, given, **how)

        if not statement.startswith(b"/* PURGE */"):
            return await act()
        return await recorder.watched("page", 0, act, lambda rows: rows[0][0])

    executor._execute = recorded  # type: ignore[method-assign]
