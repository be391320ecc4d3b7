"""Single jobs in an SQLite outbox: committed, synced, and then known in memory."""

from __future__ import annotations

import sqlite3

from service.outbox.sqlite.store import SqliteOutbox
from tests.support.commit_room import SYNCED, synchronous
from tests.support.storage import append_all, claim


async def test_a_job_is_synced_and_its_result_is_known_after_the_commit(
    outbox: SqliteOutbox,
) -> None:
    known: list[int] = []
    await append_all(outbox, 1)
    await claim(outbox)  # its commit is not synced

    def run(connection: sqlite3.Connection) -> int:
        assert connection.in_transaction
        assert known == []
        return synchronous(connection)

    assert await outbox.jobs.run(run, known.append) == SYNCED
    assert known == [SYNCED]
    assert await outbox.jobs.run(synchronous) == SYNCED
