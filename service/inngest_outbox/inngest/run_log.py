"""Log lines for each run of an Inngest function: started, finished or failed, with its duration.

Inngest calls a function once for each step, and the SDK makes a middleware for each call. The calls
of one run share its entry in `RunLog`.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any

import inngest
import structlog

_MAX_RUNS = 10_000

_log = structlog.get_logger(__name__)


class RunLog:
    """Makes the SDK's middleware; `client.add_middleware(RunLog())` logs all runs of a client.

    A duration counts from the first call in this process: an earlier step may have run elsewhere.
    """

    def __init__(self) -> None:
        self._began: OrderedDict[str, float] = OrderedDict()

    def __call__(self, client: inngest.Inngest, raw_request: object) -> inngest.Middleware:
        """The middleware of one call."""
        return _CallLog(client, raw_request, self)

    def begin(self, ctx: inngest.Context | inngest.ContextSync, name: str) -> None:
        """Log the first call of a run."""
        if ctx.run_id in self._began:
            return
        if len(self._began) == _MAX_RUNS:
            self._began.popitem(last=False)
        self._began[ctx.run_id] = time.monotonic()
        attempt = ctx.attempt + 1
        _log.info(
            "run_started", function=name, run_id=ctx.run_id, event_id=ctx.event.id, attempt=attempt
        )

    def end(
        self, ctx: inngest.Context | inngest.ContextSync, name: str, error: Exception | None
    ) -> None:
        """Log that a run finished or failed.

        Only the type of an error is logged, because its words may quote a document. Inngest shows
        them, and calls again unless the error is a NonRetriableError.
        """
        began = self._began.pop(ctx.run_id, None)
        seconds = round(time.monotonic() - began, 3) if began else None
        found = {"function": name, "run_id": ctx.run_id, "event_id": ctx.event.id}
        if error is None:
            _log.info("run_finished", **found, seconds=seconds)
        else:
            again = not isinstance(error, inngest.NonRetriableError)
            failure = type(error).__name__
            _log.warning("run_failed", **found, seconds=seconds, error=failure, retriable=again)


class _CallLog(inngest.Middleware):
    def __init__(self, client: inngest.Inngest, raw_request: object, runs: RunLog) -> None:
        super().__init__(client, raw_request)
        self._runs = runs
        self._call: tuple[inngest.Context | inngest.ContextSync, str] | None = None

    async def transform_input(
        self,
        ctx: inngest.Context | inngest.ContextSync,
        function: inngest.Function[Any],
        steps: inngest.StepMemos,
    ) -> None:
        del steps
        self._call = (ctx, function.id)
        self._runs.begin(*self._call)

    async def transform_output(self, result: inngest.TransformOutputResult) -> None:
        # A step's result is not the run's, and neither is a step's error.
        if self._call and result.step is None:
            self._runs.end(*self._call, result.error)
