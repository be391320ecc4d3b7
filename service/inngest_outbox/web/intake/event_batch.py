"""Many events of one request: read in turns, then stored in one commit or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from inngest_outbox.errors import InvalidFieldError, InvalidJsonError
from inngest_outbox.identity.user import User
from inngest_outbox.observe.recorder import Recorder
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.outbox.event import NO_META, Event, Meta
from inngest_outbox.outbox.keys import (
    ANY_CONTENT,
    Digests,
    IdempotencyKey,
    Receipt,
    hashed,
    plain_digests,
)
from inngest_outbox.web.intake.incoming import IncomingEvent, read_events
from inngest_outbox.web.intake.lenient_json import LARGE_BYTES, NO_EVENTS, BadEventError

MAX_BATCH_BYTES = 20 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """The room that a large body leaves for other requests.

    After so many events or bytes the reading lets others run. Of the bodies that are larger than
    one turn, `large_at_once` are worked on at one time.
    """

    turn_events: int = 100
    turn_bytes: int = 128 * 1024
    large_at_once: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRequest:
    """The events of `user` in `body`. `meta` is what the request says of all of them.

    `takes_send_at` takes the field `sendAt` of an event. `mark` names a request that the client
    repeats with the same events; None says that an event without an id is always new.
    `mark_seconds` is how long it counts, None as long as the row. `partly` takes the good events
    before a bad one.
    """

    user: User
    body: bytes
    meta: Meta = NO_META
    takes_send_at: bool = False
    mark: str | None = None
    mark_seconds: float | None = None
    partly: bool = False


@dataclass(slots=True)
class EventBatch:
    """The leading good events of a body, and why the reading stopped (None: it did not)."""

    events: list[Event] = field(default_factory=list)
    keys: list[IdempotencyKey | None] = field(default_factory=list)
    error: str | None = None


class BatchIntake(Protocol):
    """Stores batches."""

    async def append_all(
        self, events: Sequence[Event], keys: Sequence[IdempotencyKey | None]
    ) -> Sequence[Receipt]:
        """Make all events durable in one commit, or none.

        Raises IdempotencyKeyReusedError, TooManyPendingError, OutboxFullError,
        OutboxUnavailableError.
        """
        ...


class EventBatches:
    """Reads and stores batches. `now_ms` is wall time.

    `seal` encrypts what an event's type wants encrypted; it raises BadEventError.
    """

    def __init__(
        self,
        intake: BatchIntake,
        recorder: Recorder,
        policy: BatchPolicy | None = None,
        now_ms: Callable[[], int] = wall_now_ms,
        *,
        digests: Digests = plain_digests,
        seal: Callable[[Event], Event] | None = None,
    ) -> None:
        self._intake = intake
        self._recorder = recorder
        self._policy = policy or BatchPolicy()
        self._now_ms = now_ms
        self._digests = digests
        self._seal = seal
        self._large = asyncio.Semaphore(self._policy.large_at_once)

    async def accept(self, request: BatchRequest) -> tuple[Sequence[Receipt], str | None]:
        """Store the events; a receipt for each, and why not all were taken.

        Raises InvalidJsonError or InvalidFieldError for a bad event, unless the request is taken
        partly; and what `append_all` raises.
        """
        is_large = len(request.body) > self._policy.turn_bytes
        async with self._large if is_large else contextlib.nullcontext():
            batch = await self._read(request)
            if batch.error and not request.partly:
                raise _refusal(batch)
            return await self._store(request.user, batch), batch.error

    async def _sealed(self, seal: Callable[[Event], Event], event: Event) -> Event:
        if len(event.payload) > LARGE_BYTES:  # so much would hold up other requests
            return await asyncio.to_thread(seal, event)
        return seal(event)

    async def _store(self, user: User, batch: EventBatch) -> Sequence[Receipt]:
        if not batch.events:
            return ()
        receipts = await self._intake.append_all(batch.events, batch.keys)
        stored = [receipt.replayed for receipt in receipts].count(False)
        self._recorder.count("accepted_by_key", stored, key=user.id)
        return receipts

    async def _read(self, request: BatchRequest) -> EventBatch:
        batch, keyed = EventBatch(), _Keys(request, self._digests)
        room_events, room_bytes = self._policy.turn_events, self._policy.turn_bytes
        reading = read_events(
            request.body,
            request.user,
            self._now_ms(),
            meta=request.meta,
            takes_send_at=request.takes_send_at,
        )
        try:
            for incoming in reading:
                if incoming is not None:
                    event = incoming.event
                    if self._seal:
                        event = await self._sealed(self._seal, event)
                    batch.keys.append(keyed.key(incoming, len(batch.keys)))
                    batch.events.append(event)
                    room_events -= 1
                    room_bytes -= len(event.payload)
                if incoming is None or room_events <= 0 or room_bytes <= 0:
                    room_events, room_bytes = self._policy.turn_events, self._policy.turn_bytes
                    await asyncio.sleep(0)
        except BadEventError as error:
            batch.error = str(error)
        if not request.partly:
            keyed.count(batch.keys)
        return batch


class _Keys:
    """The keys of events that may be repeats: by their ids, else by their places in the request."""

    def __init__(self, request: BatchRequest, digests: Digests) -> None:
        self._digests = digests
        self._mark = hashed(request.mark) if request.mark else None
        self._mark_seconds = request.mark_seconds

    def key(self, incoming: IncomingEvent, position: int) -> IdempotencyKey | None:
        """The key of the event, None for one that is always new."""
        event = incoming.event
        if event.meta.wire_id:
            return IdempotencyKey.of_id(event.meta.wire_id, event.name, event.meta.environment)
        if self._mark is None:
            return None
        name = f"{self._mark} {position}"
        return IdempotencyKey.of(name, incoming.raw, self._digests, self._mark_seconds)

    def count(self, keys: list[IdempotencyKey | None]) -> None:
        """Have the first key by the mark stand for the number of events too.

        So a request with fewer or more events is another one under the same mark.
        """
        if len(keys) == 1:
            return
        for at, key in enumerate(keys):
            if key and key.digest is not ANY_CONTENT:
                digest, *earlier = (_counted(one, len(keys)) for one in (key.digest, *key.earlier))
                keys[at] = msgspec.structs.replace(key, digest=digest, earlier=tuple(earlier))
                return


def _counted(digest: bytes, events: int) -> bytes:
    return hashlib.sha256(digest + events.to_bytes(4)).digest()


def _refusal(batch: EventBatch) -> InvalidJsonError | InvalidFieldError:
    if batch.error == NO_EVENTS:
        return InvalidJsonError(NO_EVENTS)
    return InvalidFieldError(f"Event {len(batch.events) + 1}: {batch.error}.")
