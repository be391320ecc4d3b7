"""Watches whether held events have runs: asks Inngest about a few, at most once a second.

What it knows of each name is kept in the outbox, so that other processes, the commands
and the next start know it too. The invariant: it reads bounded pages of delivered rows and stands
in no event's way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import msgspec
import structlog

from inngest_outbox.errors import InngestApiError, OutboxUnavailableError
from inngest_outbox.identity.scopes import Scopes
from inngest_outbox.inngest.rest_api import RestApi
from inngest_outbox.inngest.runs import first_start_ms, outcomes_of
from inngest_outbox.observe.recorder import Recorder
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.outbox.figures import GROUPED_ROWS
from inngest_outbox.outbox.model import Filter, Row, State
from inngest_outbox.outbox.ports import Inspector
from inngest_outbox.runs.figures import (
    NAMES,
    WINDOW_MS,
    Answer,
    KeptNames,
    NameRuns,
    NameView,
    load_names,
)
from inngest_outbox.runs.questions import RunQuestions
from inngest_outbox.runs.sampling import MAX_NAMES, Candidate, Sampling
from inngest_outbox.runs.turn import SCOPE, Turn, WatchPace

_TROUBLE_MS = 10_000
_KEEP_QUIET_MS = 300_000
_FORGET_MS = 7 * 86_400_000
_PAGE = 200
_REACH = 5_000
_NAMES_A_LOOK = 9
_UNENDED = frozenset({"running", "queued", "retrying"})

log = structlog.get_logger(__name__)


class RunWatch:
    """Watches the runs of one outbox while it has the `turn`.

    `names` are those of declared event types, those in `expected` must have runs. An event should
    have one `no_run_seconds` after Inngest held it.
    """

    def __init__(
        self,
        reader: RestApi,
        rows: Inspector,
        scopes: Scopes,
        turn: Turn,
        recorder: Recorder,
        *,
        no_run_seconds: float,
        pace: WatchPace,
        names: Collection[str] = (),
        expected: Collection[str] = (),
    ) -> None:
        self._questions, self._pace = RunQuestions(reader, pace.ask), pace
        self._rows, self._scopes = rows, scopes
        self._turn, self._recorder = turn, recorder
        self._expected = frozenset(expected)
        self._sampled = no_run_seconds, names
        self._sampling = Sampling(*self._sampled)
        self._known: dict[str, NameRuns] = {}
        self._before: Mapping[str, NameView] | None = None
        self._kept = KeptNames()
        self._per_second: Mapping[str, float] = {}
        self._missing: list[str] = []
        self._measured: set[str] = set()
        self._back = 0
        self._looked_at_ms = self._concluded_at_ms = self._quiet_until_ms = 0

    @property
    def kept(self) -> KeptNames:
        """The names as last kept, none while another process watches."""
        return self._kept

    async def run(self) -> None:
        """Watch until cancelled. Outages of the store and of Inngest change nothing."""
        while True:
            with contextlib.suppress(OutboxUnavailableError):
                await self._step()
            await asyncio.sleep(self._pace.ask)

    async def _step(self) -> None:
        if not await self._turn.mine():
            self._measure(())
            self._begin_again()
            return
        now_ms = wall_now_ms()
        if now_ms < self._looked_at_ms:  # the clock was set back
            self._begin_again()
        if self._before is None:
            self._before = _remembered((await load_names(self._scopes)).names, now_ms)
        if now_ms - self._looked_at_ms >= self._sampling.slot_ms:
            self._looked_at_ms = now_ms
            await self._look(now_ms)
        if now_ms >= self._quiet_until_ms and (due := self._sampling.next(now_ms)):
            await self._ask(*due)
        await self._conclude(wall_now_ms())

    def _begin_again(self) -> None:
        self._sampling = Sampling(*self._sampled)
        self._before, self._kept = None, KeptNames()
        self._known.clear()
        self._looked_at_ms = self._concluded_at_ms = self._quiet_until_ms = 0

    async def _look(self, now_ms: int) -> None:
        """Offer the newest held events, some older ones, and those of names not among them."""
        page = await self._rows.rows(Filter(state=State.DELIVERED, limit=_PAGE))
        self._per_second = _rates(page, now_ms)
        if not page:
            return
        self._back = self._back % _REACH + _PAGE
        older = Filter(state=State.DELIVERED, before_seq=page[0].seq - self._back, limit=_PAGE)
        rows = [*page, *(await self._rows.rows(older) if len(page) == _PAGE else ())]
        shown = {row.name for row in rows if self._sampling.offer(row, now_ms)}
        self._missing = self._missing or sorted(set(self._sampling.names) - shown)
        after = max(0, page[0].seq - _REACH)
        for _ in range(_NAMES_A_LOOK if len(page) == _PAGE else 0):
            if not self._missing:
                return
            name = self._missing.pop()
            wanted = Filter(state=State.DELIVERED, name=name, after_seq=after, limit=2)
            for row in await self._rows.rows(wanted):
                self._sampling.offer(row, now_ms)

    async def _ask(self, name: str, candidate: Candidate) -> None:
        known = self._name(name)
        others_wait = self._sampling.has_due(wall_now_ms())
        briefly = others_wait and bool(known.functions) and not candidate.again
        try:
            told = await self._questions.runs(candidate, briefly=briefly)
            if not told and await self._questions.is_repeat(name, candidate):
                return
        except InngestApiError as error:
            log.debug("runs_not_asked", reason=str(error))
            if not error.refused:
                self._quiet_until_ms = wall_now_ms() + _TROUBLE_MS
            return
        now_ms, held_at_ms, outcomes = wall_now_ms(), candidate.held_at_ms, outcomes_of(told)
        started = first_start_ms(told)
        known.functions |= {(run.app.id, run.function.id) for run in told if run.function.id}
        if known.functions and (known.skips is None or not outcomes):
            known.skips = await self._questions.skips(known.functions, candidate.environment)
        known.take(
            candidate.ulid,
            Answer(
                held_at_ms=held_at_ms,
                told_at_ms=now_ms,
                held_seconds=max(0, held_at_ms - candidate.accepted_at_ms) / 1000,
                start_seconds=None if started is None else max(0, started - held_at_ms) / 1000,
                outcomes=outcomes,
            ),
        )
        if _UNENDED.intersection(outcomes):
            self._sampling.ask_again(name, candidate, now_ms, soon=briefly)

    def _name(self, name: str) -> NameRuns:
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = NameRuns(
                name,
                declared=name in self._expected,
                slot_ms=self._sampling.slot_ms,
                quiet_ms=self._pace.quiet * 1000,
                before=(self._before or {}).get(name),
            )
        return known

    async def _conclude(self, now_ms: int) -> None:
        """Judge each name; keep and measure what is known, at once where runs are missing."""
        names = dict.fromkeys([*self._sampling.names, *(self._before or {})])
        is_news = [self._name(name).judge(now_ms) for name in names]
        if not any(is_news) and now_ms - self._concluded_at_ms < self._pace.keep * 1000:
            return
        self._concluded_at_ms = now_ms
        self._known = {name: self._name(name) for name in names}
        dead = Counter[str]()
        for group in await self._rows.dead_groups(GROUPED_ROWS):
            dead[group.name] += group.rows
        views = tuple(
            one.view(now_ms, per_second=self._per_second.get(name, 0.0), dead=dead[name])
            for name, one in sorted(self._known.items())
        )
        if views != self._kept.names or now_ms - self._kept.at >= _KEEP_QUIET_MS:
            kept = KeptNames(now_ms, views)
            await self._scopes.save_scope(SCOPE, NAMES, msgspec.to_builtins(kept))
            self._kept = kept
        self._measure(views)

    def _measure(self, views: Sequence[NameView]) -> None:
        """Set the gauges of these names; those of names that are not watched now become 0."""
        gone = self._measured - {view.name for view in views}
        for view in [*views, *(NameView(name=name, expected=False) for name in gone)]:
            self._measure_one(view)
        self._measured = {view.name for view in views}

    def _measure_one(self, view: NameView) -> None:
        gauge, name = self._recorder.gauge, view.name
        gauge("no_runs", float(view.no_run_since is not None), name=name)
        gauge("sampled_without_run_ratio", view.without_run / max(1, view.sampled), name=name)
        gauge("runs_failed_ratio", view.failed / max(1, view.runs), name=name)
        gauge("held_p95_seconds", view.held_p95_seconds or 0.0, name=name)
        gauge("run_start_p95_seconds", view.start_p95_seconds or 0.0, name=name)


def _rates(page: Sequence[Row], now_ms: int) -> dict[str, float]:
    """Events per second of each name, from the page of the newest events."""
    recent = [row for row in page if now_ms - row.accepted_at_ms < WINDOW_MS]
    since_ms = WINDOW_MS
    if len(recent) == _PAGE:
        since_ms = max(1000, now_ms - page[-1].accepted_at_ms)
    counts = Counter(row.name for row in recent)
    return {name: count * 1000 / since_ms for name, count in counts.items()}


def _remembered(names: Sequence[NameView], now_ms: int) -> dict[str, NameView]:
    """The names that had a run lately or miss theirs, the last ones where they are many."""
    known = [
        one
        for one in names
        if one.no_run_since is not None or now_ms - (one.last_run_at or 0) < _FORGET_MS
    ]
    known.sort(key=lambda one: -(one.last_run_at or 0))
    return {one.name: one for one in known[:MAX_NAMES]}
