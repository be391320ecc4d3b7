"""One followed event, shared by all its followers.

There may be 10,000 followers, so the memory of each counts: the row is kept as its JSON, and a wait
is a single future, which the follower's next read resolves.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from inngest_outbox.inngest.runs import EventRun, Run
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.outbox.model import Row
from inngest_outbox.web.events.event_view import EventView, event_view, has_left, with_runs

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(EventView).decode


@dataclass(frozen=True, slots=True)
class FollowPolicy:
    """The intervals and bounds of following.

    The store is polled every `look_seconds`, at most `rows_a_read` rows at a time. Inngest is asked
    about the runs of an event every `ask_seconds`, up to `slow_seconds` while its answers are slow,
    or `trouble_seconds` after a failure, at most `asks_at_once` times in a tenth of a second and at
    a time. A first answer waits `first_ask_seconds` for the runs. A run may begin
    up to `grace_seconds` after Inngest held its event, and an output may come up to
    `output_seconds` after the end of its run. An event without a run after `no_run_seconds` has
    none. A silent stream gets a comment every `beat_seconds`. A stream ends after `stream_seconds`,
    and its client reconnects. An event without followers is kept for `linger_seconds`.
    """

    look_seconds: float = 0.5
    rows_a_read: int = 500
    ask_seconds: float = 0.8
    trouble_seconds: float = 2.0
    first_ask_seconds: float = 1.0
    asks_at_once: int = 8
    slow_seconds: float = 5.0
    grace_seconds: float = 5.0
    output_seconds: float = 3.0
    no_run_seconds: float = 300.0
    beat_seconds: float = 15.0
    stream_seconds: float = 900.0
    linger_seconds: float = 2.0
    max_wait_seconds: int = 60
    max_followers: int = 20_000
    max_followers_per_owner: int = 20_000


class Client(Protocol):
    """A client that waits."""

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
    is the loop time of the next question about runs, `left_at` when the last follower left. `told`
    are the runs as Inngest last told them, by their ids. `found_last` is true once they were looked
    for after the time in which another may begin, `questions` counts the searches since. `wire_id`
    is the id that its sender chose, `id_used` is true once another event is known to have it.
    """

    __slots__ = (
        "_asked",
        "_ended_at",
        "_held_at_ms",
        "_policy",
        "_runs_follow",
        "_waiting",
        "ask_at",
        "environment",
        "followers",
        "found_last",
        "id",
        "id_used",
        "inngest_id",
        "left_at",
        "name",
        "questions",
        "snapshot",
        "state",
        "told",
        "wire_id",
    )

    def __init__(self, row: Row, policy: FollowPolicy, *, runs_follow: bool) -> None:
        self.id = row.id
        self.name = row.name
        self.environment = row.meta.environment
        self.wire_id = row.meta.wire_id
        self.id_used = False
        self.followers = 0
        self.ask_at = 0.0
        self.left_at = 0.0
        self.questions = 0
        self.found_last = False
        self.told: dict[str, EventRun] = {}
        self._policy = policy
        self._runs_follow = runs_follow
        self._asked = False
        self._ended_at = 0.0
        self._waiting: list[tuple[asyncio.Future[None], float, Client]] = []
        self._take(row)
        self.snapshot: Snapshot | None = _snapshot(event_view(row, runs_follow=runs_follow))

    @property
    def is_moving(self) -> bool:
        """True while the event may still change."""
        return self.snapshot is not None and not self.snapshot.final

    @property
    def is_known(self) -> bool:
        """True once the runs were asked for, or where they need not be."""
        return self._asked or not self._runs_follow or not has_left(self.state)

    def show_row(self, row: Row) -> None:
        """Take over the row's state."""
        self._take(row)
        view = event_view(row, runs_follow=self._runs_follow)
        if self._asked and self.snapshot is not None:
            known = _decode(self.snapshot.body)
            # An event that was sent again has not been held for long.
            is_long = self.held_seconds(wall_now_ms()) >= self._policy.no_run_seconds
            view = with_runs(
                view,
                known.runs,
                ended=known.final and not known.no_run,
                no_run=known.no_run and is_long,
                id_used=self.id_used,
            )
        self._show(view)

    def held_seconds(self, wall_ms: int) -> float:
        """The seconds for which Inngest has held the event, or may have run it, at this time."""
        return (wall_ms - self._held_at_ms) / 1000

    def show_runs(self, runs: Sequence[Run], *, now: float, wall_ms: int) -> None:
        """Take over the state of the runs; `now` is the loop's time, `wall_ms` the wall clock's."""
        was_known, self._asked = self.is_known, True
        if self.snapshot is not None:
            held_seconds = self.held_seconds(wall_ms)
            ended = bool(runs) and held_seconds >= self._policy.grace_seconds
            ended = ended and self._are_over(runs, now)
            no_run = not runs and held_seconds >= self._policy.no_run_seconds
            view = _decode(self.snapshot.body)
            self._show(with_runs(view, runs, ended=ended, no_run=no_run, id_used=self.id_used))
        if not was_known:
            self.wake()

    def _take(self, row: Row) -> None:
        self.state = row.state
        self.inngest_id = row.at_inngest
        # Inngest runs an event no earlier than its ts, and is not known to hold one in `sent`.
        self._held_at_ms = max(row.settled_at_ms or wall_now_ms(), row.meta.ts_ms)

    def _are_over(self, runs: Sequence[Run], now: float) -> bool:
        """True when all have ended, and their outputs are there or came not in time."""
        if all(run.is_whole for run in runs):
            return True
        if any(run.ended_at is None for run in runs):
            self._ended_at = 0.0
            return False
        self._ended_at = self._ended_at or now
        return now - self._ended_at >= self._policy.output_seconds

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


def with_stacks(body: bytes, stacks: Mapping[str, str]) -> bytes:
    """The JSON of a view whose failed runs have their stacks, by the run's id."""
    view = _decode(body)
    runs = [_with_stack(run, stacks.get(run.id)) for run in view.runs]
    other_runs = tuple(runs[1:])
    return _encode(
        msgspec.structs.replace(view, run=runs[0] if runs else None, other_runs=other_runs)
    )


def _with_stack(run: Run, stack: str | None) -> Run:
    if stack is None or not isinstance(run.output, dict):
        return run
    return msgspec.structs.replace(run, output={**run.output, "stack": stack})
