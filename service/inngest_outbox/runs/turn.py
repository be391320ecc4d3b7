"""One process of an outbox watches its runs and tells its alarms; the others wait for its end.

The turn is a small value in the outbox. It is not exact: two processes that begin in the same
moment may both watch for a second. So nothing that is done in a turn may hurt when it is done
twice.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.identity.scopes import Scopes

SCOPE = "watch"
_TURN = "turn"
_LOOK_SECONDS = 5.0
_RENEW_SECONDS = 30.0
_END_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class WatchPace:
    """The intervals of the watches in seconds.

    The outbox is sampled every `sample`. Inngest is asked about runs every `ask` at most, what is
    known is kept every `keep`, and a name of which nothing was told for `quiet` is judged by less.
    Alarms are looked for every `look`, one is over after `over` without its condition, and a
    receiver has `answer` to take one.
    """

    sample: float = 10.0
    ask: float = 1.0
    keep: float = 15.0
    quiet: float = 20.0
    look: float = 5.0
    over: float = 20.0
    answer: float = 10.0


class Turn:
    """The turn of this process. With `alone`, as on SQLite, it is always its own.

    One that was not renewed while this process looked for so long has ended; no wall clock is
    asked. `clock` is in seconds.
    """

    def __init__(
        self, scopes: Scopes, *, alone: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._scopes = scopes
        self._alone = alone
        self._clock = clock
        self._me = secrets.token_hex(8)
        self._is_mine = alone
        self._looked_at = float("-inf")
        self._seen: object = None
        self._seen_at = 0.0

    async def mine(self) -> bool:
        """True while this process has the turn, which it takes where no other has it.

        Nothing changes hands while the store is away.
        """
        now = self._clock()
        if not self._alone and now - self._looked_at >= _LOOK_SECONDS:
            self._looked_at = now
            with contextlib.suppress(OutboxUnavailableError):
                self._is_mine = await self._look(now)
        return self._is_mine

    async def _look(self, now: float) -> bool:
        known = await self._scopes.load_scope(SCOPE, _TURN) or {}
        if known != self._seen:
            self._seen, self._seen_at = known, now
        is_mine = known.get("by") == self._me
        ends_after = _RENEW_SECONDS if is_mine else _END_SECONDS
        if not known or now - self._seen_at >= ends_after:
            await self._scopes.save_scope(SCOPE, _TURN, {"by": self._me, "at": now})
        return is_mine
