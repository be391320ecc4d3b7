"""Looks for alarms every few seconds and tells their changes.

Raised alarms and untold changes are kept in the outbox before anything is told. So a
restart and another process tell no change a second time, but for a try whose answer was lost: that
one has the same id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec
import structlog

from inngest_outbox.alarms.changes import AlarmChanges, AlarmState, Notice
from inngest_outbox.alarms.targets import SENDER, Target
from inngest_outbox.console.operations.alarm import alarms
from inngest_outbox.console.operations.sampler import Sampler
from inngest_outbox.console.operations.views import StatsView
from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.identity.scopes import Scopes
from inngest_outbox.observe.recorder import Recorder
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.outbox.model import Filter, State
from inngest_outbox.outbox.ports import Inspector
from inngest_outbox.runs.figures import KeptNames
from inngest_outbox.runs.turn import SCOPE, Turn, WatchPace

ALARMS = "alarms"
_MAX_AGE_SECONDS = 300.0
_CRITICAL_AGE_SECONDS = 3600.0
_WAITS_MS = (2_000, 10_000, 30_000, 60_000, 300_000, 300_000, 600_000, 600_000, 600_000)
_MOST_OWN = 1_000

log = structlog.get_logger(__name__)


class AlarmWatch:
    """Tells the changes of one outbox's alarms to `target` while it has the `turn`.

    `failure` is why events can't be stored, `names` what is known of the runs.
    """

    def __init__(
        self,
        target: Target,
        seen: Sampler,
        counts: Inspector,
        scopes: Scopes,
        turn: Turn,
        recorder: Recorder,
        *,
        pace: WatchPace,
        failure: Callable[[], str | None],
        names: Callable[[], KeptNames],
    ) -> None:
        self._target, self._seen, self._counts = target, seen, counts
        self._scopes, self._turn, self._recorder = scopes, turn, recorder
        self._pace, self._failure, self._names = pace, failure, names
        self._changes: AlarmChanges | None = None

    async def run(self) -> None:
        """Look and tell until cancelled. A target that fails or hangs holds up only itself."""
        while True:
            try:
                await self._step()
            except OutboxUnavailableError as error:
                log.warning("alarms_not_kept", reason=str(error))
            await asyncio.sleep(self._pace.look)

    async def _step(self) -> None:
        if not await self._turn.mine():
            self._changes = None
            return
        if self._changes is None:
            kept = _state(await self._scopes.load_scope(SCOPE, ALARMS))
            self._changes = AlarmChanges(kept, self._pace.over * 1000)
        latest = self._seen.latest
        if latest is not None:
            await self._look(self._changes, await self._without_own(latest.view))
        await self._tell(self._changes.state)

    async def _look(self, changes: AlarmChanges, view: StatsView) -> None:
        now_ms, failure = wall_now_ms(), self._failure()
        found = alarms(
            view,
            [failure] if failure else [],
            max_age_seconds=_MAX_AGE_SECONDS,
            critical_age_seconds=_CRITICAL_AGE_SECONDS,
            without_runs=self._names().missing_runs(now_ms),
        )
        for notice in changes.look(found, now_ms):
            log.warning("alarm", alarm=notice.alarm, state=notice.state, message=notice.message)
            await self._keep(changes.state)

    async def _without_own(self, view: StatsView) -> StatsView:
        """The figures without the events that tell alarms; all of them where none can be read."""
        try:
            dead = view.dead and await self._own(State.DEAD)
            pending = view.pending and await self._own(State.PENDING)
        except OutboxUnavailableError:
            return view
        others = view.pending + view.delivering - pending
        return msgspec.structs.replace(
            view,
            dead=view.dead - dead,
            pending=view.pending - pending,
            oldest_due_seconds=view.oldest_due_seconds if others or view.sent else None,
        )

    async def _own(self, state: State) -> int:
        return await self._counts.count(
            Filter(owner=SENDER.owner, state=state, after_seq=0, limit=_MOST_OWN)
        )

    async def _tell(self, state: AlarmState) -> None:
        """Tell the changes in their order; the first that is not taken holds up the others."""
        while state.untold and _is_due(state.untold[0], wall_now_ms()):
            notice = state.untold[0]
            fault = await self._target.tell(notice)
            left = state.untold[1:]
            if fault is None:
                self._recorder.count("alarms", outcome="told")
                state.untold = left
            else:
                state.untold = [*self._after(notice, fault), *left]
            await self._keep(state)

    def _after(self, notice: Notice, fault: str) -> Sequence[Notice]:
        """The notice with the time of its next try, nothing after the last one."""
        log.warning("alarm_not_told", alarm=notice.alarm, reason=fault, tries=notice.tries + 1)
        if notice.tries >= len(_WAITS_MS):
            self._recorder.count("alarms", outcome="given_up")
            return ()
        self._recorder.count("alarms", outcome="failed")
        next_try_at = wall_now_ms() + _WAITS_MS[notice.tries]
        again = msgspec.structs.replace(notice, tries=notice.tries + 1, next_try_at=next_try_at)
        return (again,)

    async def _keep(self, state: AlarmState) -> None:
        """Keep the state. Without a store alarms are told all the same."""
        try:
            await self._scopes.save_scope(SCOPE, ALARMS, msgspec.to_builtins(state))
        except OutboxUnavailableError as error:
            log.warning("alarms_not_kept", reason=str(error))


def _is_due(notice: Notice, now_ms: int) -> bool:
    """True from the time of its next try on, and where the clock was set back."""
    return not now_ms < notice.next_try_at <= now_ms + _WAITS_MS[-1]


def _state(stored: object) -> AlarmState:
    try:
        return msgspec.convert(stored or {}, AlarmState)
    except msgspec.ValidationError:
        return AlarmState()
