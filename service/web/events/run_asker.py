"""Asks Inngest for the runs of followed events.

The invariant: an event's runs are asked for once for all its followers, at most once a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from service.errors import InngestApiError
from service.inngest.runs import RunReader, runs_of
from service.web.events.followed_event import FollowedEvent, FollowPolicy

TURNS_A_SECOND = 5

log = structlog.get_logger(__name__)


class RunAsker:
    """Asks `reader` within the limits of `policy`. An outage of Inngest changes nothing."""

    def __init__(self, reader: RunReader, policy: FollowPolicy) -> None:
        self._reader = reader
        self._policy = policy
        self._trouble_until = 0.0

    async def ask_some(self, moving: Sequence[FollowedEvent]) -> None:
        """Ask about the due events, the longest waiting first."""
        due = [one for one in moving if self._is_due(one)]
        due.sort(key=lambda one: one.ask_at)
        some = due[: self._policy.asks_a_second // TURNS_A_SECOND]
        await asyncio.gather(*(self._ask(one) for one in some))

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

    def _is_due(self, followed: FollowedEvent) -> bool:
        return followed.inngest_id is not None and followed.ask_at <= _now()

    async def _ask(self, followed: FollowedEvent) -> None:
        followed.ask_at = _now() + self._policy.ask_seconds
        try:
            runs = await self._reader.runs(followed.inngest_id or "", followed.environment)
        except InngestApiError as error:
            followed.ask_at = self._trouble_until = _now() + self._policy.trouble_seconds
            log.debug("runs_not_asked", reason=str(error))
        else:
            followed.show_runs(runs_of(runs))


def _now() -> float:
    return asyncio.get_running_loop().time()
