"""One followed event, shared by all its followers.

There may be 10,000 followers, so the memory of each counts: the row is kept as its JSON, and a wait
is a single future, which the follower's next read resolves.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from service.inngest.runs import Run
from service.outbox.model import Row
from service.web.events.event_view import EventView, event_view, has_left, with_runs

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(EventView).decode


@dataclass(frozen=True, slots=True)
class FollowPolicy:
    """The intervals and bounds of following.

    The store is polled every `look_seconds`, at most `rows_a_read` rows at a time. Inngest is asked
    about the runs of an event every `ask_seconds`, or `trouble_seconds` after a failure, at most
    `asks_a_second` times for all events together. A first answer waits `first_ask_seconds` for the
    runs. A silent stream gets a comment every `beat_seconds`. A stream ends after `stream_seconds`,
    and its client reconnects. An event without followers is kept for `linger_seconds`.
    """

    look_seconds: float = 0.5
    rows_a_read: int = 500
    ask_seconds: float = 1.0
    trouble_seconds: float = 2.0
    first_ask_seconds: float = 1.0
    asks_a_second: int = 100
    beat_seconds: float = 15.0
    stream_seconds: float = 900.0
    linger_seconds: float = 2.0
    max_wait_seconds: int = 60
    max_followers: int = 20_000


class Client(Protocol):
    """Who waits."""

    @property
    def transport(self) -> object | None:
        """The client's connection, None when it has gone."""
        ...


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """An event at one moment: its JSON, a tag that changes with it, and whether it is final."""

    body: bytes
    tag: str
    final: bool


class FollowedEvent:
    """The latest snapshot of an event, None once the event is no longer there.

    `inngest_id` is None before Inngest has the event. `followers` counts waiting requests. `ask_at`
    is the loop time of the next question about runs, `left_at` when the last follower left.
    """

    __slots__ = (
        "_asked",
        "_runs_follow",
        "_waiting",
        "ask_at",
        "environment",
        "followers",
        "id",
        "inngest_id",
        "left_at",
        "snapshot",
        "state",
    )

    def __init__(self, row: Row, *, runs_follow: bool) -> None:
        self.id = row.id
        self.state = row.state
        self.environment = row.meta.environment
        self.inngest_id = row.inngest_id if has_left(row.state) else None
        self.followers = 0
        self.ask_at = 0.0
        self.left_at = 0.0
        self._runs_follow = runs_follow
        self._asked = False
        self._waiting: list[tuple[asyncio.Future[None], float, Client]] = []
        self.snapshot: Snapshot | None = _snapshot(event_view(row, runs_follow=runs_follow))

    @property
    def is_moving(self) -> bool:
        """Whether the event may still change."""
        return self.snapshot is not None and not self.snapshot.final

    @property
    def is_known(self) -> bool:
        """Whether the runs were asked for at least once, or need not be."""
        return self._asked or not self._runs_follow or not has_left(self.state)

    def show_row(self, row: Row) -> None:
        """Take over the row's state."""
        self.state = row.state
        self.inngest_id = row.inngest_id if has_left(row.state) else None
        view = event_view(row, runs_follow=self._runs_follow)
        if self._asked and self.snapshot is not None:
            known = _decode(self.snapshot.body)
            view = with_runs(view, known.runs)
        self._show(view)

    def show_runs(self, runs: Sequence[Run]) -> None:
        """Take over the state of the runs."""
        was_known, self._asked = self.is_known, True
        if self.snapshot is not None:
            view = _decode(self.snapshot.body)
            self._show(with_runs(view, runs))
        if not was_known:
            self.wake()

    def vanish(self) -> None:
        """The event was removed: wake all followers."""
        self.snapshot = None
        self.wake()

    def wake(self, now: float | None = None) -> None:
        """Wake all followers; with `now`, only those who waited long enough or have gone."""
        for waiting, until, client in self._waiting:
            is_over = now is None or until <= now or client.transport is None
            if is_over and not waiting.done():
                waiting.set_result(None)

    async def change(self, until: float, client: Client) -> None:
        """Wait for the next `wake`, also by one after the loop time `until` or without `client`."""
        entry = (asyncio.get_running_loop().create_future(), until, client)
        self._waiting.append(entry)
        try:
            await entry[0]
        finally:
            self._waiting.remove(entry)

    def _show(self, view: EventView) -> None:
        seen = _snapshot(view)
        if self.snapshot is None or seen.tag != self.snapshot.tag:
            self.snapshot = seen
            self.wake()


def _snapshot(view: EventView) -> Snapshot:
    body = _encode(view)
    return Snapshot(body, hashlib.blake2b(body, digest_size=12).hexdigest(), view.final)
