"""Drains the inbox: what applications appended in SQL becomes events, in the order of transactions.

One process at a time does it. A statement that stores events removes their rows from the inbox, so
an event is in exactly one place. `seen` is a snapshot: whatever its transactions appended is out of
the inbox. So a look reads only what other transactions appended since, however many dead rows an
open transaction keeps in the table, and however late a transaction commits.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Sequence
from typing import Any, Self

import msgspec
import structlog
import uuid_utils

from inngest_outbox.errors import (
    IdempotencyKeyReusedError,
    OutboxFullError,
    OutboxUnavailableError,
    ServiceError,
    TooManyPendingError,
)
from inngest_outbox.observe.recorder import Recorder
from inngest_outbox.outbox.event import Event
from inngest_outbox.outbox.keys import IdempotencyKey
from inngest_outbox.outbox.postgres.appends import Append, Place, PostgresAppends, Stored
from inngest_outbox.outbox.postgres.database.pool import PostgresPool
from inngest_outbox.outbox.postgres.inbox_row import BadRowError, InboxRow, ReadEvent
from inngest_outbox.outbox.postgres.queue import Wakeup
from inngest_outbox.outbox.postgres.quota import PostgresQuota
from inngest_outbox.supervisor import Supervisor

POLL_SECONDS = 0.05
TURN_SECONDS = 10.0
_TRY_AGAIN_SECONDS = 2.0
_NOTE_SECONDS = 2.0
_LEFT_SECONDS = 5.0
_LEFT_OWNERS = 50
_WHOLE_SECONDS = 600.0
_STORE_SECONDS = 10.0
_START = ("0", 0)

log = structlog.get_logger(__name__)


class Position(msgspec.Struct, frozen=True):
    """A snapshot as a look uses it: the first transaction after it, and those under way in it."""

    next: str = "0"
    open: tuple[str, ...] = ()

    @classmethod
    def of(cls, snapshot: str) -> Position:
        """From the text of a pg_snapshot.

        >>> Position.of("10:20:10,14")
        Position(next='20', open=('10', '14'))
        """
        _, after, under_way = snapshot.split(":")
        return cls(after, tuple(one for one in under_way.split(",") if one))


class PostgresInbox:
    """A background task; an async context manager. Whoever has the turn serves the outbox."""

    def __init__(
        self,
        pool: PostgresPool,
        appends: PostgresAppends,
        quota: PostgresQuota,
        wakeup: Wakeup,
        supervisor: Supervisor,
        *,
        recorder: Recorder,
        read: ReadEvent,
    ) -> None:
        self._pool = pool
        self._appends = appends
        self._quota = quota
        self._wakeup = wakeup
        self._supervisor = supervisor
        self._recorder = recorder
        self._read = read
        self._holder = uuid.uuid4().hex
        self._seen = Position()
        self._is_noted = False
        self._left_after = ""
        self._turn_until = self._left_at = self._note_at = self._whole_at = 0.0

    async def __aenter__(self) -> Self:
        with contextlib.suppress(OutboxUnavailableError):
            await self._has_turn()
        self._supervisor.watch("outbox-inbox", self._keep)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._supervisor.stop("outbox-inbox")
        with contextlib.suppress(OutboxUnavailableError):
            await self._pool.run("END_TURN", {"turn": "inbox", "holder": self._holder})

    async def _keep(self) -> None:
        while True:
            pause = _TRY_AGAIN_SECONDS
            with contextlib.suppress(OutboxUnavailableError):
                if await self._has_turn():
                    await self._look()
                    pause = POLL_SECONDS
            await asyncio.sleep(pause)

    async def _has_turn(self) -> bool:
        """True when this process drains now; it asks the database in the turn's second half."""
        now = time.monotonic()
        if now < self._turn_until - TURN_SECONDS / 2:
            return True
        had_it = now < self._turn_until
        given = {"turn": "inbox", "holder": self._holder, "seconds": TURN_SECONDS}
        [(mine,)] = await self._pool.run("TAKE_TURN", given)
        if mine and not had_it:
            noted = await self._pool.run("INBOX_NOTED")
            self._seen = Position.of(noted[0][0]) if noted else Position()
        self._turn_until = now + TURN_SECONDS if mine else 0.0
        return bool(mine)

    async def _look(self) -> None:
        """Drain what was appended since the last look, and now and then what was left over."""
        now = time.monotonic()
        if now >= self._whole_at:
            self._whole_at = now + _WHOLE_SECONDS
            # Rows may have come from elsewhere, with their old numbers. Among millions of dead rows
            # this takes too long; what is new is drained all the same.
            with contextlib.suppress(OutboxUnavailableError):
                await self._drain_after(None)
            return
        await self._drain_after(self._seen)
        if now >= self._left_at:
            self._left_at = now + _LEFT_SECONDS
            rows = await self._pool.run(
                "INBOX_LEFT", {"after": self._left_after, "owners": _LEFT_OWNERS}
            )
            left = [InboxRow.of(row) for row in rows]
            owners = {row.owner for row in left}
            # Owners that stay at their limits hold up none of those after them.
            self._left_after = max(owners) if len(owners) == _LEFT_OWNERS else ""
            await self._drain(left)

    async def _drain_after(self, seen: Position | None) -> None:
        """Drain what was appended since `seen`, None for the whole inbox."""
        after, snapshot = _START, ""
        while True:
            rows = await self._page(seen, after)
            snapshot = snapshot or rows[0][-1]
            if rows[0][0] is None:
                break
            page = sorted(map(InboxRow.of, rows), key=lambda row: (int(row.xid), row.no))
            if not await self._drain(page):
                return  # the outbox is full
            after, self._is_noted = (page[-1].xid, page[-1].no), False
        self._seen = Position.of(snapshot)
        now = time.monotonic()
        if not self._is_noted and now >= self._note_at:  # for those who only read
            await self._pool.run("INBOX_SEEN", {"seen": snapshot, "holder": self._holder})
            self._is_noted, self._note_at = True, now + _NOTE_SECONDS

    async def _page(self, seen: Position | None, after: tuple[str, int]) -> list[tuple[Any, ...]]:
        since = seen or Position()
        xid, no = max((int(since.next), 0), (int(after[0]), after[1]))
        given = {
            "open": list(since.open),
            "xid": after[0],
            "no": after[1],
            "from_xid": str(xid),
            "from_no": no,
        }
        if seen is None:  # a slow answer does not mean that the database is lost
            return await self._pool.ask("INBOX_PAGE", given, often=True)
        return await self._pool.run("INBOX_PAGE", given)

    async def _drain(self, page: Sequence[InboxRow]) -> bool:
        """Store what there is room for; False when the outbox is full."""
        calls: list[tuple[InboxRow, Append]] = []
        left: list[Place] = []
        waiting = set[str]()  # no event overtakes another of its owner
        full = False
        for row, event, key in await self._events(page):
            owner, size = event.owner, len(event.payload)
            try:
                if owner not in waiting:
                    await self._quota.admit(owner, 1, size, has_user=row.user_id is not None)
            except OutboxFullError:
                full = True
                break
            except TooManyPendingError:
                waiting.add(owner)
            if owner in waiting:
                left.append((row.xid, row.no))
            else:
                calls.append((row, self._call(row, event, key)))
        await self._store(calls)
        if left:
            await self._pool.run("INBOX_LEAVE", _places(left))
        if calls:
            self._wakeup.rows_are_due()
        return not full

    def _call(self, row: InboxRow, event: Event, key: IdempotencyKey | None) -> Append:
        return Append(
            (event,),
            (key,),
            self._quota.has_fair_share(event.owner),
            asyncio.get_running_loop().create_future(),
            time.monotonic() + _STORE_SECONDS,
            ((row.xid, row.no),),
        )

    async def _events(
        self, page: Sequence[InboxRow]
    ) -> list[tuple[InboxRow, Event, IdempotencyKey | None]]:
        """The events of the rows; those that are faulty in themselves are buried."""
        found = []
        for row in page:
            try:
                found.append((row, row.event(self._read), row.idempotency_key))
            except BadRowError as error:
                await self._bury(row, "invalid", str(error))
        keyed = [one for one in found if one[2]]
        if not keyed:
            return found
        events, keys = [event for _, event, _ in keyed], [key for _, _, key in keyed]
        stored = await self._appends.find_stored(events, keys, by_id=True)
        return [(row, _with_own_id(event, key, stored), key) for row, event, key in found]

    async def _store(self, calls: Sequence[tuple[InboxRow, Append]]) -> None:
        if not calls:
            return
        try:
            await self._appends.store([call for _, call in calls])
        finally:
            for _, call in calls:
                self._entered(call)
        gone: list[Place] = []
        for row, call in calls:
            error = call.done.exception()
            if isinstance(error, IdempotencyKeyReusedError):
                stored = await self._appends.find_stored(call.events, call.keys, by_id=False)
                first = ", ".join(use.event_id for use in stored.uses.values())
                detail = f"The key was used for other data by {first or row.event_id}."
                await self._bury(row, "idempotency_key_reused", detail)
            elif isinstance(error, ServiceError) and not isinstance(error, OutboxUnavailableError):
                await self._bury(row, "invalid", str(error))
            elif error is not None:
                raise error
            elif call.done.result()[0].replayed:
                gone.append((row.xid, row.no))
        if gone:
            await self._pool.run("INBOX_DROP", _places(gone))
            self._recorder.count("inbox_repeats", len(gone))

    def _entered(self, call: Append) -> None:
        [event] = call.events
        size = len(event.payload)
        is_new = not call.done.exception() and not call.done.result()[0].replayed
        self._quota.entered(event.owner, (1, size), (1, size) if is_new else (0, 0))

    async def _bury(self, row: InboxRow, reason: str, detail: str) -> None:
        log.warning("append_refused", event_id=row.event_id, reason=reason, detail=detail)
        ids = [row.event_id, f"{row.event_id}-reused-{row.no}"]
        given = {
            "xid": row.xid,
            "no": row.no,
            "ids": ids,
            "payloads": [row.body_as(one) for one in ids],
            "reason": reason,
            "detail": detail,
        }
        await self._pool.run("INBOX_BURY", given)


def _with_own_id(event: Event, key: IdempotencyKey | None, stored: Stored) -> Event:
    """The event, under a new id where its id is that of an earlier one whose key has gone."""
    if key is None or event.id not in stored.by_id:
        return event
    use = stored.uses.get((event.owner, key.key))
    lifetime = key.lifetime_seconds
    if use and (lifetime is None or stored.now_ms - use.accepted_at_ms <= lifetime * 1000):
        return event  # a repeat
    return msgspec.structs.replace(event, id=str(uuid_utils.uuid7()))


def _places(places: Sequence[Place]) -> dict[str, object]:
    return {"xids": [xid for xid, _ in places], "nos": [no for _, no in places]}
