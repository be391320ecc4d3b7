"""Questions about runs and their functions, each a second after the one before."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Collection, Sequence

import structlog

from inngest_outbox.errors import InngestApiError
from inngest_outbox.inngest.rest_api import RestApi
from inngest_outbox.inngest.runs import EventRun
from inngest_outbox.runs.sampling import Candidate

log = structlog.get_logger(__name__)

_MOST_RUNS = 3
_MOST_FUNCTIONS = 5
_KNOWN_SECONDS = 300.0
_WAITING = frozenset({"scheduled", "queued", "skipped"})


class RunQuestions:
    """Asks `reader`, with `ask_seconds` between two questions."""

    def __init__(self, reader: RestApi, ask_seconds: float) -> None:
        self._reader = reader
        self._ask_seconds = ask_seconds
        self._skips: dict[tuple[str, str], tuple[float, bool | None]] = {}

    async def runs(self, candidate: Candidate, *, briefly: bool) -> Sequence[EventRun]:
        """The first runs of an event; of a batch, only its first event has the run.

        Each question waits for its turn. Asked `briefly`, runs that have begun have their word
        alone. Raises InngestApiError.
        """
        words = await self._reader.run_words(candidate.ulid, candidate.environment)
        told: list[EventRun] = []
        for run_id, word in list(words.items())[:_MOST_RUNS]:
            if briefly and word.lower() not in _WAITING:
                told.append(EventRun(run_id, word))
                continue
            await asyncio.sleep(self._ask_seconds)
            run = await self._reader.run(run_id, candidate.environment)
            told.append(run or EventRun(run_id, ""))
        return told

    async def is_repeat(self, name: str, candidate: Candidate) -> bool:
        """True where Inngest runs nothing, as it had the event's id. Raises InngestApiError."""
        if not candidate.wire_id:
            return False
        await asyncio.sleep(self._ask_seconds)
        used = await self._reader.used_before(
            candidate.ulid, candidate.wire_id, name, candidate.environment
        )
        if used is not None:
            log.warning("event_id_used_before", inngest_id=candidate.ulid, used_by=used)
        return used is not None

    async def skips(
        self, functions: Collection[tuple[str, str]], environment: str | None
    ) -> bool | None:
        """True where each of these may leave an event without a run, None where that is unknown.

        An answer counts for five minutes.
        """
        known = [await self._skip(one, environment) for one in sorted(functions)[:_MOST_FUNCTIONS]]
        return False if False in known else (None if None in known or not known else True)

    async def _skip(self, function: tuple[str, str], environment: str | None) -> bool | None:
        now = asyncio.get_running_loop().time()
        asked_at, skips = self._skips.get(function, (-math.inf, None))
        if now - asked_at >= _KNOWN_SECONDS:
            await asyncio.sleep(self._ask_seconds)
            with contextlib.suppress(InngestApiError):
                skips = await self._reader.may_skip(*function, environment)
            self._skips[function] = now, skips
        return skips
