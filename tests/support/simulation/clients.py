"""The clients of a history: what they ask for, and what they and the operators were told."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from inngest_outbox.errors import OutboxError, RefusedError
from inngest_outbox.outbox.event import Event
from inngest_outbox.outbox.keys import IdempotencyKey, Receipt
from inngest_outbox.outbox.sqlite.store import SqliteOutbox
from tests.support.simulation.inline_world import Clocks, Disk
from tests.support.simulation.simulated_inngest import FAILING, REFUSED

HEALTHY = "healthy"
MOST_WAIT_SECONDS = 30.0
WELL_WAIT_SECONDS = 1.0
KEY_SECONDS = 24 * 3600.0
_RECOVERY_SECONDS = 30.0
_ATTEMPTS = 4
_DIGEST = bytes(32)


class HistoryError(AssertionError):
    """A promise was broken."""


@dataclass
class Told:
    """What the clients and the operators were told.

    `keys` has the event of each key, and when it was told. `discarded` are events that may be
    discarded, `gone` those that are. `arrays` are the ids of calls without answer.
    """

    answered: dict[str, str] = field(default_factory=dict)
    keys: dict[tuple[str, str], tuple[str, float]] = field(default_factory=dict)
    discarded: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    arrays: list[Sequence[str]] = field(default_factory=list)
    kills: int = 0


class Clients:
    """Everybody who posts.

    `broken` is called with the words for a promise that was seen broken. `is_alive` says whether
    the process of that outbox still runs; one that is gone answers nobody.
    """

    def __init__(
        self,
        chance: random.Random,
        clocks: Clocks,
        disk: Disk,
        is_alive: Callable[[SqliteOutbox], bool],
        broken: Callable[[str], None],
    ) -> None:
        self._chance = chance
        self._disk = disk
        self._clocks = clocks
        self._is_alive = is_alive
        self.numbers = 0
        self._kinds: dict[str, str] = {}
        self._broken = broken
        self.told = Told()

    async def post(self, outbox: SqliteOutbox) -> None:
        """Post single events and arrays until cancelled."""
        posts: set[asyncio.Task[None]] = set()
        try:
            while True:
                await asyncio.sleep(self._chance.expovariate(1 / 20))
                for _ in range(self._chance.choice([1, 1, 3, 40])):
                    kind = self.post_array if self._chance.random() < 0.02 else self._post_one
                    post = asyncio.create_task(kind(outbox))
                    posts.add(post)
                    post.add_done_callback(posts.discard)
        finally:
            for post in posts:
                post.cancel()

    def event(self, kind: str, owner: str | None = None) -> Event:
        """A new event; of some user, unless `owner` names one."""
        self.numbers += 1
        event_id = f"e-{self.numbers}"
        owner = owner or f"u-{self._chance.randrange(20)}"
        self._kinds[event_id] = kind
        payload = b'{"id":"%b","name":"%b"}' % (event_id.encode(), kind.encode())
        return Event(event_id, kind, owner, owner, int(self._clocks.wall() * 1000), payload)

    async def _post_one(self, outbox: SqliteOutbox) -> None:
        """Post an event; one with a key again until there is an answer."""
        event, key = self.event(self._kind()), self._key()
        for _ in range(_ATTEMPTS if key else 1):
            with self._answered_soon(outbox):
                receipt = await outbox.intake.append(event, key=key)
                if self._is_alive(outbox):
                    self._was_told([event], [key], [receipt])
                return
            await asyncio.sleep(self._chance.expovariate(1 / 10))

    async def post_array(self, outbox: SqliteOutbox) -> None:
        """Post an array, and remember what was answered."""
        owner = f"u-{self._chance.randrange(20)}"
        events = [self.event(self._kind(), owner) for _ in range(self._chance.randrange(2, 12))]
        keys = [self._key() for _ in events]
        ids = [event.id for event, key in zip(events, keys, strict=True) if key is None]
        self.told.arrays.append(ids)
        with self._answered_soon(outbox):
            receipts = await outbox.intake.append_all(events, keys)
            if self._is_alive(outbox):
                self._was_told(events, keys, receipts)

    def _kind(self) -> str:
        return self._chance.choices([HEALTHY, REFUSED, FAILING], [0.97, 0.02, 0.01])[0]

    def _key(self) -> IdempotencyKey | None:
        if self._chance.random() < 0.2:
            return IdempotencyKey(f"k-{self._chance.randrange(12)}", _DIGEST, KEY_SECONDS)
        return None

    @contextlib.contextmanager
    def _answered_soon(self, outbox: SqliteOutbox) -> Iterator[None]:
        """While the disk is well a post is taken, within a second."""
        began = self._clocks.monotonic()
        try:
            with contextlib.suppress(RefusedError):
                yield
        except OutboxError as error:
            if self._was_well(began) and self._is_alive(outbox):
                self._broken(f"a post was refused while the disk was well: {error}")
        finally:
            waited = self._clocks.monotonic() - began
            if waited > (WELL_WAIT_SECONDS if self._was_well(began) else MOST_WAIT_SECONDS):
                self._broken(f"a post waited {waited:g} s")

    def _was_well(self, began: float) -> bool:
        return self._disk.well_since + _RECOVERY_SECONDS < began

    def _was_told(
        self,
        events: Sequence[Event],
        keys: Sequence[IdempotencyKey | None],
        receipts: Sequence[Receipt],
    ) -> None:
        for event, key, receipt in zip(events, keys, receipts, strict=True):
            if key is not None:
                self._told_of_key((event.owner, key.key), receipt.event_id)
            self.told.answered[receipt.event_id] = self._kinds[receipt.event_id]

    def _told_of_key(self, key: tuple[str, str], event_id: str) -> None:
        now = self._clocks.monotonic()
        known, since = self.told.keys.setdefault(key, (event_id, now))
        if known == event_id:
            return
        self.told.keys[key] = event_id, now
        # The wall clock may have been set by hours meanwhile.
        if known not in self.told.discarded and now - since < KEY_SECONDS - 6 * 3600:
            self._broken(f"one key gave two events: {known} and {event_id}")
