"""The runs that an event started, as its owner sees them."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from service.inngest.rest_api import EventRun


class RunStatus(enum.StrEnum):
    """The status of a run. The last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the run has ended."""
        return self in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED)


# Inngest's other names for a run that has not started or was skipped.
_OTHER_WORDS = {"scheduled": RunStatus.QUEUED, "skipped": RunStatus.CANCELLED}


class Run(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """One run of a function. Times are milliseconds since 1970.

    `output` is the function's result, or its error.
    """

    id: str
    status: RunStatus
    started_at: int | None
    ended_at: int | None
    output: object


class RunReader(Protocol):
    """Reads the runs of an event."""

    async def runs(self, ulid: str, environment: str | None = None) -> Sequence[EventRun]:
        """The runs that the event started, none before it started any. Raises InngestApiError.

        `environment` None asks for the service's own.
        """
        ...


def runs_of(answer: Sequence[EventRun]) -> tuple[Run, ...]:
    """The runs in Inngest's answer, the first one first."""
    return tuple(_run(one) for one in sorted(answer, key=lambda one: one.run_id))


def _run(told: EventRun) -> Run:
    status = _status(told.status)
    ended = told.ended_at if status.is_final else None
    return Run(told.run_id, status, _ms(told.run_started_at), _ms(ended), told.output)


def _status(word: str) -> RunStatus:
    """The status for Inngest's word. An unknown word counts as running."""
    known = word.lower()
    if known in set(RunStatus):
        return RunStatus(known)
    return _OTHER_WORDS.get(known, RunStatus.RUNNING)


def _ms(moment: str | None) -> int | None:
    try:
        return int(datetime.fromisoformat(moment).timestamp() * 1000) if moment else None
    except ValueError:
        return None
