"""Stores calls of events: all that share a flush in one statement and one sync.

The invariant: a call is answered only after the commit that holds its events, and is stored whole
or not at all. Keys are looked up before, and the events' ids and keys are unique. So where a key
was used meanwhile, or an earlier run of the statement had stored the events though its answer was
lost, the statement stores nothing, and is tried again with what is stored now.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import psycopg

from inngest_outbox.errors import (
    IdempotencyKeyReusedError,
    InvalidFieldError,
    OutboxUnavailableError,
    ServiceError,
)
from inngest_outbox.observe.recorder import Recorder
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.outbox.event import (
    Event,
    by_environment,
    decode_meta,
    encode_meta,
    payload_bytes,
)
from inngest_outbox.outbox.event_ids import USED_MS, IdUses, ids_to_look_for, named_apart
from inngest_outbox.outbox.inngest_id import InngestIds
from inngest_outbox.outbox.keys import (
    Division,
    IdempotencyKey,
    Keys,
    KeyUse,
    Receipt,
    divide,
    replay,
)
from inngest_outbox.outbox.postgres.database.pool import PostgresPool

_TRIES = 5
_INDEXED_CHARS = 255  # of an id on the wire
_UNNUMBERED = 1 << 62  # from here on: the place of a new event among those of its flush

Place = tuple[str, int]
"""Where a row of the inbox is: its transaction and its number."""


class Append(msgspec.Struct, frozen=True, eq=False):
    """The events of one call, which wait to be stored; `done` gets the result.

    `fair_share` is true where their owner has few rows in a full queue. `drained` are the rows of
    the inbox that they come from.
    """

    events: Sequence[Event]
    keys: Keys
    fair_share: bool
    done: asyncio.Future[Sequence[Receipt]]
    deadline: float
    drained: Sequence[Place] = ()

    @property
    def payload_bytes(self) -> int:
        """The size of all payloads."""
        return payload_bytes(self.events)


Answer = Sequence[Receipt] | ServiceError


@dataclass(frozen=True, slots=True)
class Stored:
    """The stored events by their ids, and by (owner, key). `now_ms` is the database's time."""

    by_id: Mapping[str, KeyUse] = field(default_factory=dict)
    uses: Mapping[tuple[str, str], KeyUse] = field(default_factory=dict)
    now_ms: int = 0


class PostgresAppends:
    """Stores batches of calls. `ids` derives the events' ids in Inngest.

    The owners `shared_ids` use each other's event ids.
    """

    def __init__(
        self,
        pool: PostgresPool,
        recorder: Recorder,
        ids: Callable[[], InngestIds],
        shared_ids: Collection[str] = (),
    ) -> None:
        self._shared_ids = shared_ids
        self._naming = asyncio.Lock()
        self._pool = pool
        self._recorder = recorder
        self._ids = ids

    async def warm_up(self, flushes: int) -> None:
        """Connect and plan for so many flushes at once, so that the first calls wait for neither.

        A database that does not answer now is no error.
        """
        seconds = self._pool.timings.ask_seconds
        with contextlib.suppress(OutboxUnavailableError):
            await asyncio.gather(
                *(
                    self._pool.run("APPEND", self._columns(()), within_seconds=seconds)
                    for _ in range(flushes)
                )
            )

    async def find_stored(self, events: Sequence[Event], keys: Keys, *, by_id: bool) -> Stored:
        """The stored events under these keys and, with `by_id`, under these ids.

        Raises OutboxUnavailableError.
        """
        keyed = [(event.owner, key.key) for event, key in zip(events, keys, strict=True) if key]
        given = {
            "ids": [event.id for event in events] if by_id else [],
            "owners": [owner for owner, _ in keyed],
            "keys": [key for _, key in keyed],
        }
        rows = await self._pool.run("FIND_STORED", given)
        by_ids = {row[0]: _use(row) for row in rows} if by_id else {}
        uses = {(row[1], row[2]): _use(row) for row in rows if row[2] is not None}
        return Stored(by_ids, uses, rows[0][-1]) if rows else Stored()

    def divided(self, events: Sequence[Event], keys: Keys, stored: Stored) -> Division:
        """The events divided by what is stored. Raises IdempotencyKeyReusedError."""
        now = stored.now_ms
        return divide(events, keys, uses=stored.uses, ids=self._ids(), next_seq=0, now_ms=now)

    async def store(self, batch: Sequence[Append]) -> None:
        """Store the batch and answer all its callers. Raises only errors that are bugs."""
        began = time.monotonic()
        try:
            answers = await self._store(batch)
        except InvalidFieldError as exc:
            await self._isolate(batch, exc)
        except OutboxUnavailableError as exc:
            fail(batch, exc)
        except BaseException:
            fail(batch)
            raise
        else:
            _resolve(batch, answers)
            self._recorder.count("accepted", sum(map(_count_new, answers)))
            self._recorder.observe("group_events", sum(len(item.events) for item in batch))
            self._recorder.observe("commit_seconds", time.monotonic() - began)

    async def _isolate(self, batch: Sequence[Append], error: InvalidFieldError) -> None:
        """One call of the batch can't be stored: halve the batch until it is found."""
        half = len(batch) // 2
        if half:
            await self.store(batch[:half])
            await self.store(batch[half:])
        else:
            _resolve(batch, [error])

    async def _store(self, batch: Sequence[Append]) -> Sequence[Answer]:
        deadline = max(min(item.deadline for item in batch), time.monotonic() + 0.05)
        for tried in range(_TRIES):
            stored = await self._stored(batch, again=tried > 0)
            group = _Group(batch, stored, self._ids())
            if group.expired:
                await self._pool.run("FREE_KEYS", {"seqs": group.expired})
            if not group.rows:
                await self._pool.run("SYNC", replicated=True)
                return group.answers(())
            with contextlib.suppress(psycopg.errors.UniqueViolation):
                async with self._named_apart(group, look=tried > 0):
                    seqs = await self._append(group, deadline)
                return group.answers(seqs)
        raise OutboxUnavailableError(retry_after_seconds=1)

    async def _append(self, group: _Group, deadline: float) -> Sequence[int]:
        [(seqs, _)] = await self._pool.run(
            "APPEND",
            self._columns(group.rows),
            within_seconds=max(0.0, deadline - time.monotonic()),
            replicated=True,
        )
        return list(seqs)

    @contextlib.asynccontextmanager
    async def _named_apart(self, group: _Group, *, look: bool) -> AsyncIterator[None]:
        """Give new events ids of their own where another owner uses theirs, then store them.

        The statement stores none where another owner has used an id; only after that they are
        looked up. Of this process, one batch with chosen ids is stored at a time: they would wait
        for each other in the database.
        """
        events = [row.event for row in group.rows]
        if not (wire_ids := ids_to_look_for(events)):
            yield
            return
        async with self._naming:
            uses = await self._wire_ids_used(wire_ids) if look else {}
            named = named_apart(events, uses, self._shared_ids)
            group.rows = [
                msgspec.structs.replace(row, event=event)
                for row, event in zip(group.rows, named, strict=True)
            ]
            yield

    async def _wire_ids_used(self, wire_ids: Sequence[str]) -> IdUses:
        starts = [one[:_INDEXED_CHARS] for one in wire_ids]
        given = {"starts": starts, "ids": list(wire_ids), "since": wall_now_ms() - USED_MS}
        uses: IdUses = {}
        for environment, wire_id, owner in await self._pool.run("WIRE_IDS_USED", given):
            uses.setdefault((environment, wire_id), set()).add(owner)
        return uses

    def _columns(self, rows: Sequence[_Row]) -> dict[str, object]:
        """The parameters of APPEND."""
        chosen = [row.event for row in rows if row.event.meta.wire_id]
        return {
            **_columns(rows),
            "environments": [event.meta.environment or "" for event in chosen],
            "wire_ids": [event.meta.wire_id for event in chosen],
            "wire_owners": [event.owner for event in chosen],
            "shared": list(self._shared_ids),
            "since": wall_now_ms() - USED_MS,
        }

    async def _stored(self, batch: Sequence[Append], *, again: bool) -> Stored:
        if not again and not any(any(item.keys) for item in batch):
            return Stored()
        events = [event for item in batch for event in item.events]
        keys = [key for item in batch for key in item.keys]
        return await self.find_stored(events, keys, by_id=again)


class _Row(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A new event; `place` counts from 1 in the order in which the events get their seqs."""

    place: int
    event: Event
    key: IdempotencyKey | None
    fair_share: bool
    drained: Place | None


class _Group:
    """A batch beside what is stored: its new rows, and the answer to each call."""

    def __init__(self, batch: Sequence[Append], stored: Stored, ids: InngestIds) -> None:
        self.rows: list[_Row] = []
        self.expired: list[int] = []
        self._found: list[Division | Sequence[Receipt] | ServiceError] = [()] * len(batch)
        self._uses = dict(stored.uses)
        self._stored = stored
        self._ids = ids
        for number in by_environment([item.events for item in batch]):
            self._found[number] = self._take(batch[number])

    def _take(self, item: Append) -> Division | Sequence[Receipt] | ServiceError:
        """Divide a call; its new events become rows, and later calls see its uses of keys."""
        own = [self._stored.by_id.get(event.id) for event in item.events]
        if any(own):
            return self._stored_before(item, own)
        try:
            division = divide(
                item.events,
                item.keys,
                uses=self._uses,
                ids=self._ids,
                next_seq=_UNNUMBERED + len(self.rows),
                now_ms=self._stored.now_ms,
            )
        except IdempotencyKeyReusedError as error:
            return error
        self.expired += division.expired
        self._uses |= division.uses
        for at in division.new:
            self.rows.append(
                _Row(
                    len(self.rows) + 1,
                    item.events[at],
                    item.keys[at],
                    item.fair_share,
                    item.drained[at] if item.drained else None,
                )
            )
        return division

    def _stored_before(self, item: Append, own: Sequence[KeyUse | None]) -> Sequence[Receipt]:
        """The receipts of a call that an earlier run has stored; its other events were replays."""
        receipts = []
        for event, key, mine in zip(item.events, item.keys, own, strict=True):
            if mine:
                # A row of the inbox whose event is stored is a repeat: it would be gone.
                again = bool(item.drained)
                receipts.append(_receipt(mine, self._ids, replayed=again))
            elif key and (use := self._uses.get((event.owner, key.key))):
                receipts.append(replay(key, use, self._ids))
        return receipts

    def answers(self, seqs: Sequence[int]) -> list[Answer]:
        """The answers to the calls, in their order, when the rows have got these seqs."""
        return [
            [_numbered(one, seqs) for one in found.receipts]
            if isinstance(found, Division)
            else found
            for found in self._found
        ]


def fail(batch: Sequence[Append], cause: Exception | None = None) -> None:
    """Fail each call with OutboxUnavailableError."""
    for item in batch:
        if not item.done.done():
            error = OutboxUnavailableError()
            error.__cause__ = cause
            item.done.set_exception(error)


def _receipt(use: KeyUse, ids: InngestIds, *, replayed: bool) -> Receipt:
    own = ids.of(use.seq)
    return Receipt(use.event_id, use.seq, use.accepted_at_ms, own, replayed, use.meta)


def _numbered(receipt: Receipt, seqs: Sequence[int]) -> Receipt:
    if receipt.seq < _UNNUMBERED:
        return receipt
    return msgspec.structs.replace(receipt, seq=seqs[receipt.seq - _UNNUMBERED])


def _columns(rows: Sequence[_Row]) -> dict[str, object]:
    """The columns of the rows and the sums of their owners."""
    # Every process uses this order, so that two flushes never wait for each other's keys.
    by_key = sorted(rows, key=lambda row: (row.event.owner, row.key.key) if row.key else ("", ""))
    drained = [row.drained for row in rows if row.drained]
    sizes = [len(row.event.payload) for row in rows]
    owned: dict[str, list[int]] = {}
    for row, size in zip(rows, sizes, strict=True):
        counts = owned.setdefault(row.event.owner, [0, 0])
        counts[0] += 1
        counts[1] += size
    return {
        "rows": len(rows),
        "positions": [row.place for row in by_key],
        "ids": [row.event.id for row in by_key],
        "names": [row.event.name for row in by_key],
        "owners": [row.event.owner for row in by_key],
        "users": [row.event.user_id for row in by_key],
        "accepted": [row.event.accepted_at_ms for row in by_key],
        "metas": [encode_meta(row.event.meta) for row in by_key],
        "keys": [row.key and row.key.key for row in by_key],
        "digests": [row.key and row.key.digest for row in by_key],
        "payloads": [row.event.payload for row in by_key],
        "sizes": sizes,
        "due": [row.event.meta.due_at_ms for row in rows],
        "fair_share": [row.fair_share for row in rows],
        "xids": [xid for xid, _ in drained],
        "nos": [no for _, no in drained],
        "by_owner": list(owned),
        "owner_rows": [count for count, _ in owned.values()],
        "owner_bytes": [size for _, size in owned.values()],
    }


def _use(row: Sequence[Any]) -> KeyUse:
    event_id, _, _, digest, seq, accepted_at_ms, meta, _ = row
    return KeyUse(event_id, seq, accepted_at_ms, bytes(digest or b""), decode_meta(meta))


def _resolve(batch: Sequence[Append], answers: Sequence[Answer]) -> None:
    """Give each caller its result or its error."""
    for item, answer in zip(batch, answers, strict=True):
        if item.done.done():
            continue
        if isinstance(answer, ServiceError):
            item.done.set_exception(answer)
        else:
            item.done.set_result(answer)


def _count_new(answer: Answer) -> int:
    if isinstance(answer, ServiceError):
        return 0
    return sum(not receipt.replayed for receipt in answer)
