"""Follows events for waiting requests, with one read of the store for all.

The invariant: an event is read once for all its followers. Nothing here is on the path of a post.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.model import Filter, Row, State
from inngest_outbox.outbox.ports import Inspector
from inngest_outbox.web.events.followed_event import FollowedEvent, FollowPolicy
from inngest_outbox.web.events.run_asker import TURNS_A_SECOND, RunAsker


class EventFollower:
    """The followed events. `asker` is None when Inngest can't be asked for runs.

    `followers` counts waiting requests. An event without followers is kept for `linger_seconds`.
    """

    def __init__(self, rows: Inspector, asker: RunAsker | None, policy: FollowPolicy) -> None:
        self.policy = policy
        self.closed = False
        self._rows = rows
        self._asker = asker
        self._followed: dict[str, FollowedEvent] = {}
        self.followers = 0
        self._owners: Counter[str] = Counter()
        self._wanted = asyncio.Event()

    @property
    def runs_follow(self) -> bool:
        """True where Inngest can be asked for runs."""
        return self._asker is not None

    def has_room(self, owner: str) -> bool:
        """True where one more request of `owner` may wait."""
        if self.closed or self.followers >= self.policy.max_followers:
            return False
        return self._owners[owner] < self.policy.max_followers_per_owner

    def begin(self, row: Row, owner: str) -> FollowedEvent:
        """Follow the event of `row`, as the store just read it, until `end`, for `owner`."""
        followed = self._followed.get(row.id)
        if followed is None:
            followed = FollowedEvent(row, self.policy, runs_follow=self._asker is not None)
            self._followed[row.id] = followed
            self._wanted.set()
        followed.show_row(row)
        followed.followers += 1
        self.followers += 1
        self._owners[owner] += 1
        return followed

    async def ask_soon(self, followed: FollowedEvent) -> None:
        """Ask for the event's runs now, unless they were asked for within the last second."""
        if self._asker:
            await self._asker.ask_soon(followed)

    def end(self, followed: FollowedEvent, owner: str) -> None:
        """A follower of `owner` leaves."""
        followed.followers -= 1
        followed.left_at = asyncio.get_running_loop().time()
        self.followers -= 1
        self._owners[owner] -= 1
        if not self._owners[owner]:
            del self._owners[owner]

    def close(self) -> None:
        """Release all waiting requests: the service stops."""
        self.closed = True
        for followed in self._followed.values():
            followed.wake()

    async def look(self) -> None:
        """Read the followed rows again and again. Waits during an outage of the store."""
        while True:
            moving = await self._moving()
            with contextlib.suppress(OutboxUnavailableError):
                await self._look(moving)
            await asyncio.sleep(self.policy.look_seconds)

    async def end_waits(self) -> None:
        """Wake who has waited long enough or has gone, again and again; waits for no store."""
        while True:
            moving = await self._moving()
            now = asyncio.get_running_loop().time()
            for one in moving:
                one.wake(now)
            await asyncio.sleep(self.policy.look_seconds)

    async def ask(self) -> None:
        """Ask for runs again and again. Waits during an outage of Inngest."""
        if self._asker is None:
            return
        try:
            while True:
                await self._asker.ask_some(await self._moving())
                await asyncio.sleep(1 / TURNS_A_SECOND)
        finally:
            await self._asker.stop()

    async def _moving(self) -> list[FollowedEvent]:
        """The followed events that may still change; waits until there is one."""
        self._forget()
        while not self._followed:
            self._wanted.clear()
            await self._wanted.wait()
        return [one for one in self._followed.values() if one.followers and one.is_moving]

    def _forget(self) -> None:
        before = asyncio.get_running_loop().time() - self.policy.linger_seconds
        gone = [
            event_id
            for event_id, one in self._followed.items()
            if not one.followers and one.left_at < before
        ]
        for event_id in gone:
            del self._followed[event_id]

    async def _look(self, moving: Sequence[FollowedEvent]) -> None:
        wanted = [one for one in moving if one.state is not State.DELIVERED]
        for start in range(0, len(wanted), self.policy.rows_a_read):
            await self._look_up(wanted[start : start + self.policy.rows_a_read])

    async def _look_up(self, some: Sequence[FollowedEvent]) -> None:
        ids = tuple(one.id for one in some)
        found = {row.id: row for row in await self._rows.rows(Filter(ids=ids, limit=len(ids)))}
        for one in some:
            row = found.get(one.id)
            if row is None:
                one.vanish()
            else:
                one.show_row(row)
