"""One event that somebody follows, shared by all who wait for it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

import msgspec

from service.outbox.model import Row
from service.web.following.event_view import EventView, event_view, has_left
from service.web.following.runs import Run

_encode = msgspec.json.Encoder().encode


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """An event at one moment: its JSON, a tag that changes with it, and whether it is the last."""

    body: bytes
    tag: str
    final: bool


class FollowedEvent:
    """The latest snapshot of an event, None once the event is no longer there.

    `followers` counts those who wait. `ask_at` is the loop time of the next question about runs,
    `left_at` the loop time at which the last follower left.
    """

    __slots__ = (
        "_changed",
        "_runs",
        "_runs_follow",
        "ask_at",
        "followers",
        "left_at",
        "row",
        "snapshot",
    )

    def __init__(self, row: Row, *, runs_follow: bool) -> None:
        self.row = row
        self.followers = 0
        self.ask_at = 0.0
        self.left_at = 0.0
        self._runs_follow = runs_follow
        self._runs: Sequence[Run] | None = None
        self._changed: asyncio.Future[None] | None = None
        self.snapshot: Snapshot | None = self._snapshot()

    @property
    def is_moving(self) -> bool:
        """Whether something may still happen to the event."""
        return self.snapshot is not None and not self.snapshot.final

    @property
    def is_known(self) -> bool:
        """Whether runs are not still to be asked for the first time."""
        return self._runs is not None or not self._runs_follow or not has_left(self.row)

    def show_row(self, row: Row) -> None:
        """Take over where the row is now."""
        self.row = row
        self._show()

    def show_runs(self, runs: Sequence[Run]) -> None:
        """Take over what the runs do now."""
        was_known = self.is_known
        self._runs = runs
        self._show()
        if not was_known:
            self.wake()

    def vanish(self) -> None:
        """The event was removed: let everyone who waits know."""
        self.snapshot = None
        self.wake()

    def wake(self) -> None:
        """Let everyone who waits look again."""
        if self._changed is not None:
            self._changed.set_result(None)
            self._changed = None

    async def change(self) -> None:
        """Wait for the next call of `wake`."""
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._changed)

    def _show(self) -> None:
        seen = self._snapshot()
        if self.snapshot is None or seen.tag != self.snapshot.tag:
            self.snapshot = seen
            self.wake()

    def _snapshot(self) -> Snapshot:
        return snapshot_of(event_view(self.row, self._runs or (), runs_follow=self._runs_follow))


def snapshot_of(view: EventView) -> Snapshot:
    """The snapshot of a view."""
    body = _encode(view)
    return Snapshot(body, hashlib.blake2b(body, digest_size=12).hexdigest(), view.final)
