"""Questions about the runs of one event at a time, each a second after the one before."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from service.inngest.runs import EventRun, RunReader
from service.outbox.clock import wall_now_ms
from service.runs.sampling import Candidate

_SEARCH_MS = 10_000
_MOST_RUNS = 3


class RunQuestions:
    """Asks `reader`, with `ask_seconds` between two questions.

    A question that is dear for Inngest is asked every 10 seconds at most.
    """

    def __init__(self, reader: RunReader, ask_seconds: float) -> None:
        self._reader = reader
        self._ask_seconds = ask_seconds
        self._searched_at_ms = 0
        self._batched: set[str] = set()  # names whose runs only a dear question finds

    async def runs(self, name: str, candidate: Candidate) -> Sequence[EventRun] | None:
        """The first runs of an event, None where only a dear question could tell, and not now.

        Each question waits for its turn. Raises InngestApiError.
        """
        at = candidate.ulid, candidate.environment
        run_ids = await self._reader.run_ids(*at)
        if not run_ids:
            now_ms = wall_now_ms()
            if now_ms - self._searched_at_ms < _SEARCH_MS:
                return None if name in self._batched else ()
            self._searched_at_ms = now_ms
            await asyncio.sleep(self._ask_seconds)
            if run_ids := await self._reader.run_ids(*at, thorough=True):
                self._batched.add(name)
        told: list[EventRun] = []
        for run_id in run_ids[:_MOST_RUNS]:
            await asyncio.sleep(self._ask_seconds)
            run = await self._reader.run(run_id, candidate.environment)
            told.append(run or EventRun(run_id, ""))
        return told
