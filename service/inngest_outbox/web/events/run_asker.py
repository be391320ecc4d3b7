"""Asks Inngest for the runs of followed events.

The invariant: an event's runs are asked for once for all its followers, at most once a second.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

import msgspec
import structlog

from inngest_outbox.errors import InngestApiError
from inngest_outbox.inngest.rest_api import RestApi
from inngest_outbox.inngest.runs import EventRun, RunLink, runs_of
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.web.events.followed_event import FollowedEvent, FollowPolicy

TURNS_A_SECOND = 10
_REST = 2.0  # times as long as the answer took
_THOROUGH_EVERY = 10

log = structlog.get_logger(__name__)


class RunAsker:
    """Asks `reader` within the limits of `policy`. An outage of Inngest changes nothing.

    `link` gives the address of a run's page, `reveal` an output that was encrypted in plain.
    """

    def __init__(
        self,
        reader: RestApi,
        link: RunLink,
        policy: FollowPolicy,
        reveal: Callable[[object], object] | None = None,
    ) -> None:
        self._reveal = reveal
        self._reader = reader
        self._link = link
        self._policy = policy
        self._trouble_until = 0.0
        self._asking: set[asyncio.Task[None]] = set()

    async def ask_some(self, moving: Sequence[FollowedEvent]) -> None:
        """Begin to ask about due events, the longest waiting first; waits for no answer."""
        due = sorted((one for one in moving if self._is_due(one)), key=lambda one: one.ask_at)
        room = self._policy.asks_at_once - len(self._asking)
        for one in due[:room]:
            one.ask_at = math.inf
            task = asyncio.create_task(self._ask(one), name="ask-for-runs")
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def ask_soon(self, followed: FollowedEvent) -> None:
        """Ask about one event now if it is due, for `first_ask_seconds` at most.

        It does not wait when Inngest gave no answer a moment ago.
        """
        if not self._is_due(followed) or _now() < self._trouble_until:
            return
        try:
            async with asyncio.timeout(self._policy.first_ask_seconds):
                await self._ask(followed)
        except TimeoutError:
            self._trouble_until = _now() + self._policy.trouble_seconds

    async def stop(self) -> None:
        """Cancel the questions under way."""
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    def _is_due(self, followed: FollowedEvent) -> bool:
        return followed.inngest_id is not None and followed.ask_at <= _now()

    async def _ask(self, followed: FollowedEvent) -> None:
        began_at, environment = _now(), followed.environment
        next_at = began_at + self._policy.ask_seconds
        followed.ask_at = math.inf  # until this question has ended
        try:
            await self._find(followed)
            open_runs = [one for one in followed.told if not self._is_whole(followed, one)]
            for run_id in open_runs:
                if told := await self._reader.run(run_id, environment):
                    followed.told[run_id] = self._revealed(told)
            if not followed.told:
                await self._look_for_its_id(followed)
        except InngestApiError as error:
            next_at = self._trouble_until = _now() + self._policy.trouble_seconds
            log.debug("runs_not_asked", reason=str(error))
        else:
            runs = runs_of(followed.told.values(), self._link, environment)
            followed.show_runs(runs, now=_now(), wall_ms=wall_now_ms())
            # A server that is slow is asked less often.
            rest = min(self._policy.slow_seconds, _REST * (_now() - began_at))
            next_at = max(next_at, _now() + rest)
        finally:
            followed.ask_at = next_at

    def _revealed(self, told: EventRun) -> EventRun:
        if self._reveal is None:
            return told
        return msgspec.structs.replace(told, output=self._reveal(told.output))

    async def _find(self, followed: FollowedEvent) -> None:
        """Find the event's runs: until it has one, and as long as another may begin."""
        held_seconds = followed.held_seconds(wall_now_ms())
        in_grace = held_seconds < self._policy.grace_seconds
        if followed.told and followed.found_last:
            return
        thorough = not followed.told and not in_grace and followed.questions % _THOROUGH_EVERY == 0
        followed.questions += not in_grace
        ulid, environment = followed.inngest_id or "", followed.environment
        for run_id in await self._reader.run_ids(ulid, environment, thorough=thorough):
            followed.told.setdefault(run_id, EventRun(run_id, ""))
        followed.found_last = not in_grace

    async def _look_for_its_id(self, followed: FollowedEvent) -> None:
        """Learn whether an event without a run has an id that Inngest had from another event."""
        is_over = followed.held_seconds(wall_now_ms()) >= self._policy.no_run_seconds
        wire_id, ulid = followed.wire_id, followed.inngest_id
        if not (is_over and wire_id and ulid) or followed.id_used:
            return
        used = await self._reader.used_before(ulid, wire_id, followed.name, followed.environment)
        followed.id_used = used is not None
        if used is not None:
            log.warning("event_id_used_before", event_id=followed.id, used_by=used)

    def _is_whole(self, followed: FollowedEvent, run_id: str) -> bool:
        [run] = runs_of([followed.told[run_id]], self._link)
        return run.is_whole


def _now() -> float:
    return asyncio.get_running_loop().time()
