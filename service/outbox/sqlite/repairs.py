"""The Repairs of an SQLite outbox: changes by operators' commands.

The invariant: nothing here touches a row under a claim, and every action leaves an audit row in its
own commit.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from service.outbox.audit import Act, act_of
from service.outbox.clock import wall_now_ms
from service.outbox.model import DeliveryRecord, Named, State
from service.outbox.retention import purge
from service.outbox.sqlite.delivery import SqliteDelivery
from service.outbox.sqlite.jobs import JobRunner
from service.outbox.sqlite.notes import audit_rows, noted
from service.outbox.sqlite.purge import SqlitePurger
from service.outbox.sqlite.quota import Freed, StoredCounts
from service.outbox.sqlite.removal import Removal
from service.outbox.sqlite.rows import matching

# A dead row is pending again, with no attempts counted.
REPLAY = f"""
INSERT INTO outbox_ready (seq, payload_bytes, sends, first_sent_at_ms, history)
SELECT seq, length(payload), sends, first_sent_at_ms, {noted(":now", ":note")}
FROM json_each(:seqs) CROSS JOIN outbox_done ON seq = value CROSS JOIN outbox USING (seq)
"""
REPLAY_REMOVE = "DELETE FROM outbox_done WHERE seq IN (SELECT value FROM json_each(:seqs))"

_SEQ, _EVENT_ID, _OWNER, _STATE = 0, 1, 3, 5


class _Changed(NamedTuple):
    ids: list[str]
    pending: dict[str, int]


class _Removed(NamedTuple):
    ids: list[str]
    freed: Freed


class SqliteRepairs:
    """Changes rows through `jobs`, and keeps the counts true."""

    def __init__(
        self,
        jobs: JobRunner,
        delivery: SqliteDelivery,
        counts: StoredCounts,
        removal: Removal,
        purger: SqlitePurger,
    ) -> None:
        self._jobs = jobs
        self._delivery = delivery
        self._counts = counts
        self._removal = removal
        self._purger = purger

    async def replay(self, wanted: Named, *, actor: str, act: Act | None = None) -> list[str]:
        """The named dead rows become pending, with the state DELIVERED the delivered ones.

        Returns their ids.
        """
        state = wanted.state or State.DEAD
        settled = msgspec.structs.replace(wanted, state=state).filter
        is_done = state in (State.DEAD, State.DELIVERED)

        def run(connection: sqlite3.Connection) -> _Changed:
            now = wall_now_ms()
            rows = matching(connection, settled, now) if is_done else []
            values = {"seqs": _seqs(rows), "now": now, "note": f"replayed by {actor}"}
            connection.execute(REPLAY, values)
            connection.execute(REPLAY_REMOVE, values)
            ids = [row[_EVENT_ID] for row in rows]
            audit_rows(connection, actor, "replay", act or act_of(wanted.filter), ids)
            return _Changed(ids, _by_owner(rows))

        return (await self._jobs.run(run, lambda done: self._counts.returned(done.pending))).ids

    async def discard(self, wanted: Named, *, actor: str, act: Act | None = None) -> list[str]:
        """Remove the named rows that are not under a claim; returns their ids."""

        def run(connection: sqlite3.Connection) -> _Removed:
            found = matching(connection, wanted.filter, wall_now_ms())
            rows = [row for row in found if row[_STATE] != State.DELIVERING]
            pending = _by_owner([row for row in rows if row[_STATE] == State.PENDING])
            stored_bytes, _ = self._removal.remove(connection, _seqs(rows))
            ids = [row[_EVENT_ID] for row in rows]
            audit_rows(connection, actor, "discard", act or act_of(wanted.filter), ids)
            return _Removed(ids, Freed(pending, stored_bytes))

        return (await self._jobs.run(run, lambda done: self._counts.free(done.freed))).ids

    async def purge(self, *, older_than_seconds: float, actor: str | None) -> int:
        """Remove delivered rows settled longer ago, in small pages; returns how many."""
        return await purge(self._purger, older_than_seconds=older_than_seconds, actor=actor)

    async def set_paused(
        self, *, paused: bool, actor: str, ask_now: bool = False, reason: str = ""
    ) -> DeliveryRecord:
        """Pause or resume delivery; returns the delivery record."""
        return await self._delivery.set_paused(
            paused=paused, actor=actor, ask_now=ask_now, reason=reason
        )


def _seqs(rows: Sequence[tuple[Any, ...]]) -> str:
    return msgspec.json.encode([row[_SEQ] for row in rows]).decode()


def _by_owner(rows: Sequence[tuple[Any, ...]]) -> dict[str, int]:
    by_owner: dict[str, int] = {}
    for row in rows:
        by_owner[row[_OWNER]] = by_owner.get(row[_OWNER], 0) + 1
    return by_owner
