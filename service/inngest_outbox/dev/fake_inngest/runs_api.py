"""The runs in the fake Inngest's REST API: `/v1/events/{id}/runs`, `/v1/runs/{id}` and `/api/v2`.

The first API has a run's end and output from its history, which is written after the status; the
second one has all of it at once, and an end of a cancelled run that lies ahead.
"""

from __future__ import annotations

import msgspec
from aiohttp import web

from inngest_outbox.dev.fake_inngest.functions import Function
from inngest_outbox.dev.fake_inngest.ledger import MovableClock
from inngest_outbox.dev.fake_inngest.rest_api import (
    Guard,
    Refused,
    answered,
    event_ulid,
    is_ulid,
    moment,
    refused,
)
from inngest_outbox.dev.fake_inngest.runs import Run, Runs

HISTORY_MS = 300  # from a run's status to its end and output in the first API
CANCEL_GRACE_MS = 10_000
_RUNS_SECONDS, _RUN_SECONDS = 15.0, 3.0
_DEFAULT_PAGE, _MAX_PAGE = 20, 40
_NO_ID = "00000000-0000-0000-0000-000000000000"

_encode = msgspec.json.encode


class RunsApi:
    """The handlers over `runs`."""

    def __init__(self, runs: Runs, clock: MovableClock, guard: Guard) -> None:
        self._runs = runs
        self._clock = clock
        self._guard = guard

    def add_routes(self, app: web.Application) -> None:
        """Add the endpoints."""
        wrap = self._guard.wrap
        app.router.add_get("/v1/events/{id}/runs", wrap(self._old_runs, _RUNS_SECONDS))
        app.router.add_get("/v1/runs/{id}", wrap(self._old_run, _RUN_SECONDS))
        app.router.add_get("/api/v2/events/{id}/runs", wrap(self._runs_of))
        app.router.add_get("/api/v2/runs/{id}", wrap(self._run))
        app.router.add_get("/api/v2/apps/{app}/functions/{id}", wrap(self._function))

    def _old_runs(self, request: web.Request) -> bytes:
        now_ms = self._clock.now_ms
        ulid = event_ulid(request)
        found = [one for one in self._runs.of_event(ulid, now_ms) if one.internal_id == ulid]
        return answered([self._old_view(one, now_ms) for one in found], now_ms)

    def _old_run(self, request: web.Request) -> bytes:
        run_id, now_ms = request.match_info["id"], self._clock.now_ms
        if not is_ulid(run_id):
            raise refused(f"Invalid run ID: {run_id}", 400)
        found = self._runs.find(run_id, now_ms)
        if found is None:
            raise refused(f"Unable to load function run: {run_id}", 500)
        return answered(self._old_view(found, now_ms), now_ms)

    def _old_view(self, run: Run, now_ms: int) -> dict[str, object]:
        ended = run.ends_at_ms <= now_ms
        told = run.ends_at_ms + (HISTORY_MS if run.ends_at_ms > run.started_at_ms else 0) <= now_ms
        return {
            "run_id": run.run_id,
            "run_started_at": moment(run.started_at_ms),
            "function_id": _NO_ID,
            "function_version": 0,
            "environment_id": _NO_ID,
            "event_id": run.internal_id,
            "status": run.status if ended else _word(run, "Running", "Scheduled", now_ms),
            "ended_at": moment(run.ends_at_ms) if told else None,
            **({"output": _old_output(run, self._runs.function(run.function))} if told else {}),
        }

    def _runs_of(self, request: web.Request) -> bytes:
        query, ulid, now_ms = request.query, request.match_info["id"], self._clock.now_ms
        if not is_ulid(ulid):
            raise _invalid("Event ID must be a valid ULID")
        limit = int(query["limit"]) if query.get("limit", "").isdigit() else _DEFAULT_PAGE
        if limit > _MAX_PAGE:
            raise _invalid(f"Limit cannot exceed {_MAX_PAGE}")
        below = query.get("cursor") or "8"
        found = [one for one in self._runs.of_event(ulid, now_ms) if one.run_id < below]
        with_output = query.get("includeOutput") == "true"
        data = [self._view(one, now_ms, with_output=with_output) for one in found[:limit]]
        page: dict[str, object] = {"limit": limit}
        if len(found) > limit:
            page |= {"hasMore": True, "cursor": found[limit - 1].run_id}
        told = {"metadata": {"fetchedAt": moment(now_ms)}, "page": page}
        return _encode(told | ({"data": data} if data else {}))

    def _run(self, request: web.Request) -> bytes:
        now_ms = self._clock.now_ms
        found = self._runs.find(request.match_info["id"], now_ms)
        if found is None:
            raise Refused({"errors": [{"code": "not_found", "message": "Run not found"}]}, 404)
        with_output = request.query.get("includeOutput") == "true"
        view = self._view(found, now_ms, with_output=with_output)
        return _encode({"data": view, "metadata": {"fetchedAt": moment(now_ms)}})

    def _function(self, request: web.Request) -> bytes:
        found = self._runs.function(request.match_info["id"])
        if found.id != request.match_info["id"] or found.app != request.match_info["app"]:
            raise Refused({"errors": [{"code": "not_found", "message": "Function not found"}]}, 404)
        limits = {
            "rateLimit": found.rate_limit_ms and {"limit": 1, "period": _span(found.rate_limit_ms)},
            "debounce": found.debounce_ms and {"period": _span(found.debounce_ms)},
            "eventsBatch": found.batch_size and {"maxSize": found.batch_size},
        }
        view = {
            "id": found.id,
            "name": found.id,
            "app": {"id": found.app},
            "triggers": [{"type": "EVENT", "value": found.trigger}],
            "configuration": {name: limit for name, limit in limits.items() if limit},
        }
        return _encode({"data": view, "metadata": {"fetchedAt": moment(self._clock.now_ms)}})

    def _view(self, run: Run, now_ms: int, *, with_output: bool) -> dict[str, object]:
        function = self._runs.function(run.function)
        view: dict[str, object] = {
            "id": run.run_id,
            "function": {"id": run.function, "name": run.function},
            "app": {"id": function.app},
            "status": _word(run, "RUNNING", "QUEUED", now_ms),
            "queuedAt": moment(run.started_at_ms),
            "startedAt": moment(run.started_at_ms),
            "trigger": {"eventIds": [run.internal_id]},
        }
        if function.batch_size:
            view["trigger"] = {"eventIds": [run.internal_id], "isBatch": True}
        if run.ends_at_ms <= now_ms:
            ended = run.ends_at_ms + (CANCEL_GRACE_MS if run.status == "Cancelled" else 0)
            view |= {"status": run.status.upper(), "endedAt": moment(ended)}
            view["durationMs"] = str(ended - run.started_at_ms)
        if with_output and run.status != "Cancelled" and _has_output(run, function, now_ms):
            view["output"] = _output(run)
        return view


def _span(milliseconds: int) -> str:
    return f"{milliseconds // 1000}s"


def _word(run: Run, running: str, queued: str, now_ms: int) -> str:
    return running if run.runs_from_ms <= now_ms else queued


def _has_output(run: Run, function: Function, now_ms: int) -> bool:
    """At the end, and of a run that fails from its first attempt on."""
    failed_first = run.status == "Failed" and run.runs_from_ms + function.lasts_ms <= now_ms
    return run.ends_at_ms <= now_ms or failed_first


def _output(run: Run) -> object:
    value = msgspec.json.decode(run.output)
    if run.status == "Failed":
        return {"error": value}
    return value if isinstance(value, dict) else {"data": value}


def _old_output(run: Run, function: Function) -> object:
    if run.status == "Cancelled":
        return {}
    if run.status == "Completed" and not function.old_output:
        return ""
    return msgspec.Raw(run.output)


def _invalid(message: str) -> Refused:
    return Refused({"errors": [{"code": "invalid_field_format", "message": message}]}, 400)
