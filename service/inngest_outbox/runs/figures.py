"""The figures of event names: which sampled events have a run, and how the runs went.

An outage leaves all events without a run. A debounce, a batch, a rate limit or a condition leaves
some, so a name whose functions have one never misses its runs. Where Inngest does not tell what
they have, a name misses its runs only if all its events had one before. The names are kept in
the outbox.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence

import msgspec

from inngest_outbox.identity.scopes import Scopes
from inngest_outbox.runs.turn import SCOPE

ALARM_EVENT = "outbox/alarm"
"""The service's own event, which counts nowhere."""
WINDOW_MS = 900_000

_QUEUED = "queued"
_MAX_ANSWERS = 100
_MAX_ASKED = 200
_FORGET_MS = 86_400_000
NAMES = "names"
_FRESH_MS = 900_000


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A sampled event, as Inngest told of its runs.

    `held_at_ms` is when Inngest held it or was to run it, `told_at_ms` when it told. `held_seconds`
    is the time from acceptance to held, `start_seconds` from there to the start
    of its first run, None while none has started. `outcomes` are those of its runs.
    """

    held_at_ms: int
    told_at_ms: int
    held_seconds: float
    start_seconds: float | None
    outcomes: tuple[str, ...]

    @property
    def has_run(self) -> bool:
        """True when a run has started. One that is queued may never start."""
        return any(word != _QUEUED for word in self.outcomes)


class NameView(msgspec.Struct, frozen=True, gc=False, rename="camel", kw_only=True):
    """An event name for people and programs. A run counts once it has started.

    Its sampled events were asked about within 15 minutes. `outcomes` counts their runs. `asked` and
    `ran` count events of a longer time, those with a run in `ran`. `expected` says that missing
    runs raise an alarm, `no_run_since` since when they do. Times are milliseconds since 1970.
    `per_second` is an estimate of the events held per second.
    """

    name: str
    expected: bool
    sampled: int = 0
    with_run: int = 0
    held_median_seconds: float | None = None
    held_p95_seconds: float | None = None
    start_median_seconds: float | None = None
    start_p95_seconds: float | None = None
    outcomes: Mapping[str, int] = {}
    per_second: float = 0.0
    dead: int = 0
    asked: int = 0
    ran: int = 0
    last_run_at: int | None = None
    no_run_since: int | None = None

    @property
    def without_run(self) -> int:
        """The number of sampled events without a run."""
        return self.sampled - self.with_run

    @property
    def failed(self) -> int:
        """The number of runs that failed, or are tried again after a failure."""
        return self.outcomes.get("failed", 0) + self.outcomes.get("retrying", 0)

    @property
    def runs(self) -> int:
        """The number of runs that the sampled events started."""
        return sum(self.outcomes.values())


class NameRuns:
    """The figures of one name. `declared` names must have runs, others once they had one.

    `skips` is true where its functions may leave an event without a run, None where that is not
    known; `functions` are theirs that were seen, each by its app's id and its own.
    `before` is what an earlier process knew. A name is quiet after `quiet_ms` without an answer.
    Events of one slot of `slot_ms` are told apart by no time: an event without a run beside one
    with a run does not show an outage.
    """

    def __init__(
        self,
        name: str,
        *,
        declared: bool,
        slot_ms: int,
        quiet_ms: float,
        before: NameView | None = None,
    ) -> None:
        self._name = name
        self._declared = declared
        self._slot_ms, self._quiet_ms = slot_ms, quiet_ms
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._asked = before.asked if before else 0
        self._ran = before.ran if before else 0
        self._last_run_at = before.last_run_at if before else None
        self.no_run_since = before.no_run_since if before else None
        had_skips = before is not None and before.ran > 0 and not before.expected
        self.skips: bool | None = True if had_skips else None
        self.functions = set[tuple[str, str]]()
        self._told_at_ms = 0
        self._told = (False, self.no_run_since)

    @property
    def expected(self) -> bool:
        """True where an event must have a run."""
        return self._declared or (self._ran > 0 and not self.skips)

    def take(self, ulid: str, answer: Answer) -> None:
        """Take an answer about the event `ulid`; a second one replaces the first."""
        before = self._answers.get(ulid)
        is_new, ran_before = before is None, before is not None and before.has_run
        self._answers[ulid] = answer
        if len(self._answers) > _MAX_ANSWERS:
            self._answers.popitem(last=False)
        if is_new:
            self._asked += 1
            self._told_at_ms = answer.told_at_ms
        if answer.has_run:
            self._ran += not ran_before
            self._last_run_at = max(answer.held_at_ms, self._last_run_at or 0)
            if self.no_run_since is not None and answer.held_at_ms >= self.no_run_since:
                self.no_run_since = None
                self._asked = self._ran  # the gap is explained
        if self._asked > _MAX_ASKED:
            self._asked, self._ran = self._asked // 2, math.ceil(self._ran / 2)

    def judge(self, now_ms: int) -> bool:
        """Note that runs are missing, or that it was so long ago; true where there is news.

        The first answer is news, too, and a run after runs were missing.
        """
        since, streak = self.no_run_since, self._streak()
        if since is not None and now_ms - max(since, self._told_at_ms) > _FORGET_MS:
            self.no_run_since = None
            self._answers.clear()  # else they would be missing again at once
        elif since is None and self._is_missing(len(streak), now_ms):
            self.no_run_since = min(streak)
        told, self._told = self._told, (bool(self._answers), self.no_run_since)
        return told != self._told

    def _streak(self) -> Sequence[int]:
        """The times at which events were held after the last one with a run; these have none."""
        after = (self._last_run_at or 0) + self._slot_ms
        return [one.held_at_ms for one in self._answers.values() if one.held_at_ms > after]

    def _is_missing(self, streak: int, now_ms: int) -> bool:
        if not streak or not self.expected:
            return False
        had_gaps = self._ran < self._asked - streak
        if had_gaps and self.skips is None and not self._declared:
            return False
        return streak > 1 or now_ms - self._told_at_ms >= self._quiet_ms

    def view(self, now_ms: int, *, per_second: float, dead: int) -> NameView:
        """The figures now."""
        known = self._answers.values()
        window = [one for one in known if now_ms - one.told_at_ms <= WINDOW_MS]
        held = [one.held_seconds for one in window]
        starts = [one.start_seconds for one in window if one.start_seconds is not None]
        return NameView(
            name=self._name,
            expected=self.expected,
            sampled=len(window),
            with_run=sum(one.has_run for one in window),
            held_median_seconds=_median(held),
            held_p95_seconds=_p95(held),
            start_median_seconds=_median(starts),
            start_p95_seconds=_p95(starts),
            outcomes=dict(sorted(Counter(word for one in window for word in one.outcomes).items())),
            per_second=round(per_second, 2),
            dead=dead,
            asked=self._asked,
            ran=self._ran,
            last_run_at=self._last_run_at,
            no_run_since=self.no_run_since,
        )


def _median(values: Sequence[float]) -> float | None:
    return round(statistics.median(values), 3) if values else None


def _p95(values: Sequence[float]) -> float | None:
    """The smallest value that 95 % do not exceed.

    >>> _p95([1.0]), _p95([float(one) for one in range(1, 101)])
    (1.0, 95.0)
    """
    return round(sorted(values)[math.ceil(len(values) * 0.95) - 1], 3) if values else None


class KeptNames(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The facts about each name at a moment, milliseconds since 1970."""

    at: int = 0
    names: tuple[NameView, ...] = ()

    def missing_runs(self, now_ms: int) -> list[NameView]:
        """The names that miss their runs; none where a service has not looked for long."""
        is_fresh = now_ms - self.at <= _FRESH_MS
        return [one for one in self.names if is_fresh and one.no_run_since is not None]


async def load_names(scopes: Scopes) -> KeptNames:
    """The names as they were last kept. Raises OutboxUnavailableError."""
    return names_of(await scopes.load_scope(SCOPE, NAMES))


def names_of(stored: object) -> KeptNames:
    """The names of a stored value, none where it is not such a value."""
    try:
        return msgspec.convert(stored, KeptNames)
    except msgspec.ValidationError:
        return KeptNames()
