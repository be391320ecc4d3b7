"""Bugs of the intake and of operators' changes, planted on purpose."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

from service.outbox.clock import wall_now_ms
from service.outbox.event import Event
from service.outbox.inngest_id import InngestIds
from service.outbox.keys import IdempotencyKey, KeyUse, Receipt, divide
from service.outbox.model import Filter, Named, State
from service.outbox.sqlite import appends
from service.outbox.sqlite.commit import Group, SqliteCommits
from service.outbox.sqlite.file.connection import SQL
from service.outbox.sqlite.intake import SqliteIntake
from service.outbox.sqlite.repairs import SqliteRepairs
from service.outbox.sqlite.state import StoredCounts


def _answer_before_the_commit() -> None:
    append = SqliteIntake.append

    async def answering(self: SqliteIntake, event: Any, **named: Any) -> Receipt:
        late = asyncio.create_task(append(self, event, **named))
        late.add_done_callback(lambda done: done.cancelled() or done.exception())
        return Receipt(event.id, 0, wall_now_ms(), InngestIds(bytes(6)))

    SqliteIntake.append = answering  # type: ignore[method-assign]


def _answer_a_commit_that_was_rolled_back() -> None:
    transact = SqliteCommits._transact
    commits = 0

    def losing(
        self: SqliteCommits, connection: sqlite3.Connection, group: Group, mode: str | None
    ) -> Any:
        nonlocal commits
        commits += 1
        if commits % 100:
            return transact(self, connection, group, mode)
        connection.execute("BEGIN IMMEDIATE")
        results = self._apply(connection, group)
        connection.execute("ROLLBACK")
        return results

    SqliteCommits._transact = losing  # type: ignore[method-assign]


def _store_an_array_event_by_event() -> None:
    async def append_all(
        self: SqliteIntake,
        events: Sequence[Event],
        keys: Sequence[IdempotencyKey | None],
        **named: Any,
    ) -> Sequence[Receipt]:
        return [
            await self.append(event, key=key, **named)
            for event, key in zip(events, keys, strict=True)
        ]

    SqliteIntake.append_all = append_all  # type: ignore[method-assign]


def _forget_keys() -> None:
    append = SqliteIntake.append

    async def forgetting(
        self: SqliteIntake, event: Any, *, key: IdempotencyKey | None = None, **named: Any
    ) -> Receipt:
        return await append(self, event, **named)

    SqliteIntake.append = forgetting  # type: ignore[method-assign]


def _remember_a_key_after_a_rollback() -> None:
    look = appends.uses_of
    known: dict[tuple[str, str], KeyUse] = {}
    connections: list[sqlite3.Connection] = []

    def remembering(connection: sqlite3.Connection, events: Any, keys: Any) -> Any:
        if connection not in connections:  # another process
            connections.append(connection)
            known.clear()
        return {**known, **look(connection, events, keys)}

    def noting(*given: Any, **named: Any) -> Any:
        found = divide(*given, **named)
        known.update(found.uses)
        return found

    appends.uses_of = remembering
    mock.patch.object(appends, "divide", noting).start()


def _give_no_room_back() -> None:
    def left(self: StoredCounts, owner: str, count: int = 1) -> None:
        del self, owner, count

    StoredCounts.left = left  # type: ignore[method-assign]


def _count_each_post_twice() -> None:
    enter = StoredCounts.enter

    def twice(self: StoredCounts, owner: str, rows: int, size: int) -> bool:
        return enter(self, owner, rows * 2, size)

    StoredCounts.enter = twice  # type: ignore[method-assign]


def _take_no_ids_for_all() -> None:
    found = vars(Named)["filter"]

    def all_for_none(named: Named) -> Filter:
        wanted: Filter = found.fget(named) if named.ids else Filter(state=State.PENDING, limit=3)
        return wanted

    mock.patch.object(Named, "filter", property(all_for_none)).start()


def _replay_into_nowhere() -> None:
    SQL["REPLAY"] = "SELECT :seqs, :now, :note"


def _resume_nothing() -> None:
    set_paused = SqliteRepairs.set_paused

    async def pausing(self: SqliteRepairs, *, paused: bool, **named: Any) -> Any:
        return await set_paused(self, paused=True, **named)

    SqliteRepairs.set_paused = pausing  # type: ignore[method-assign]


BUGS: dict[str, Callable[[], None]] = {
    "answer before the commit": _answer_before_the_commit,
    "answer a commit that was rolled back": _answer_a_commit_that_was_rolled_back,
    "store an array event by event": _store_an_array_event_by_event,
    "forget keys": _forget_keys,
    "remember a key after a rollback": _remember_a_key_after_a_rollback,
    "give no room back": _give_no_room_back,
    "count each post twice": _count_each_post_twice,
    "take no ids for all": _take_no_ids_for_all,
    "replay into nowhere": _replay_into_nowhere,
    "resume nothing": _resume_nothing,
}
