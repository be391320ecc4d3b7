"""The runs that an event started, as its owner sees them.

Inngest may say that a run has completed or failed before it has the run's end and output. The
invariant: a run has ended once Inngest gives its end, and is whole once it gives its output too.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from datetime import datetime

import msgspec


class RunStatus(enum.StrEnum):
    """The status of a run. The last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """True for the status of a run that has ended."""
        return self in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED)


_SKIPPED = "skipped"
# Inngest's other names for a run that has not started or was skipped.
_OTHER_WORDS = {"scheduled": RunStatus.QUEUED, _SKIPPED: RunStatus.CANCELLED}
_TOLD_OF_ERRORS = {"name", "message"}


class Named(msgspec.Struct, frozen=True):
    """An app by its id, or a function by the id that its app gave it."""

    id: str = ""


class EventRun(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A run in Inngest's answer. Before `ended_at`, `output` may be a failed attempt's."""

    id: str
    status: str
    started_at: str | None = None
    ended_at: str | None = None
    output: object = None
    function: Named = Named()
    app: Named = Named()


class Run(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """One run of a function. Times are milliseconds since 1970.

    `output` is the function's result as Inngest's API shows it, or `name` and `message` of its
    error; null before the end. `url` is the run's page at Inngest, null where there is none.
    """

    id: str
    function: str
    status: RunStatus
    started_at: int | None
    ended_at: int | None
    output: object
    url: str | None = None

    @property
    def is_whole(self) -> bool:
        """True when the run has ended and its output is known. A cancelled run has none."""
        is_told = self.output is not None or self.status is RunStatus.CANCELLED
        return self.ended_at is not None and is_told


RunLink = Callable[[str, str | None], str | None]
"""The address of a run's page by its id and the environment of its event."""


def runs_of(
    answer: Iterable[EventRun], link: RunLink, environment: str | None = None
) -> tuple[Run, ...]:
    """The runs in Inngest's answers, the first one first."""
    found = sorted(answer, key=lambda one: one.id)
    return tuple(_run(one, link(one.id, environment)) for one in found)


def outcomes_of(answer: Iterable[EventRun]) -> tuple[str, ...]:
    """A word for each run: its status, or `retrying` after an attempt that failed.

    A run that Inngest skipped, because its function is paused, is one that is queued for ever.
    """
    return tuple(map(_outcome, answer))


def first_start_ms(answer: Iterable[EventRun]) -> int | None:
    """The start of the first run, None while none has started."""
    started = (one for one in answer if _outcome(one) != RunStatus.QUEUED)
    starts = [at for at in (_ms(one.started_at) for one in started) if at is not None]
    return min(starts, default=None)


def stacks_of(answer: Iterable[EventRun]) -> dict[str, str]:
    """The stacks of failed runs by their ids: paths of the worker, for operators only."""
    errors = {one.id: _error(one) for one in answer if _status(one) is RunStatus.FAILED}
    return {run_id: str(error["stack"]) for run_id, error in errors.items() if "stack" in error}


def _run(told: EventRun, url: str | None) -> Run:
    ended = _ms(told.ended_at)
    status, output = _status(told), None
    # Inngest may show an error of its own as that of a cancelled run.
    has_output = told.output is not None and status is not RunStatus.CANCELLED
    if ended is not None and has_output:
        error = _error(told)
        shown = {name: error[name] for name in _TOLD_OF_ERRORS if name in error}
        output = shown if status is RunStatus.FAILED else told.output
    return Run(told.id, told.function.id, status, _ms(told.started_at), ended, output, url)


def _outcome(told: EventRun) -> str:
    word, status = told.status.lower(), _status(told)
    if word == _SKIPPED:
        return RunStatus.QUEUED.value
    has_failed = word == RunStatus.FAILED or _error(told).keys() >= _TOLD_OF_ERRORS
    return "retrying" if has_failed and not status.is_final else status.value


def _status(told: EventRun) -> RunStatus:
    """The status of a run: final from its end on, whatever Inngest's word. Unknown words run."""
    word = told.status.lower()
    status = RunStatus(word) if word in set(RunStatus) else _OTHER_WORDS.get(word)
    if _ms(told.ended_at) is None:
        return RunStatus.RUNNING if status is None or status.is_final else status
    if status is not None and status.is_final:
        return status
    return RunStatus.FAILED if _error(told).keys() >= _TOLD_OF_ERRORS else RunStatus.COMPLETED


def _error(told: EventRun) -> dict[str, object]:
    """The error of a failed run. Some answers have it as the output, some inside it.

    That of Go's SDK is a text.
    """
    output = told.output if isinstance(told.output, dict) else {}
    inner = output.get("error")
    if isinstance(inner, str):
        return {"name": "Error", "message": inner}
    return inner if isinstance(inner, dict) else output


def _ms(moment: str | None) -> int | None:
    """Milliseconds since 1970; None for no moment, which Go may write as the year 1."""
    try:
        at = datetime.fromisoformat(moment).timestamp() if moment else 0.0
    except (ValueError, OverflowError):
        return None
    return int(at * 1000) if at > 0 else None
