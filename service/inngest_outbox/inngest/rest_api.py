"""Inngest's REST API: which events it holds and what became of their runs.

The invariant: nothing raised here holds the signing key, and "not found", which the API answers
with 200 and a status in the body, is never taken for an event.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from inngest_outbox.config.destination import Destination, confirmation_mode, destination
from inngest_outbox.config.settings import Settings
from inngest_outbox.config.values import InngestAddress, plain
from inngest_outbox.errors import InngestApiError
from inngest_outbox.inngest.address import inngest_address
from inngest_outbox.inngest.held import MAX_PAGE, HeldEvent
from inngest_outbox.inngest.runs import EventRun
from inngest_outbox.outbox.event_ids import USED_MS
from inngest_outbox.outbox.inngest_id import ENVIRONMENT_HEADER, decode_ulid
from inngest_outbox.outbox.storable import repaired

_MAX_ANSWER_BYTES = 32 * 1024 * 1024
_SLOW_SHARE = 0.5  # of the time limit: the next page is smaller
_FAST_SHARE = 0.1
_PAGES_BEFORE = 4
_RANDOM_BITS = 80  # of a ULID, below its time
_OK = 200
_NOT_FOUND = 404
_REFUSED = frozenset({401, 403})
_UNDECIDED = frozenset({"queued", "scheduled", "running"})
_SKIPPING = ("rateLimit", "debounce", "eventsBatch", "singleton")
_LONG_AGO = "1980-01-01T00:00:00Z"  # without it Inngest lists the last hour only

_Form = TypeVar("_Form")
_Answer = TypeVar("_Answer", bound="_Status")


class _Status(msgspec.Struct):
    error: str | None = None
    status: int = _OK


class _Event(msgspec.Struct):
    internal_id: str
    id: str = ""


class _Page(_Status):
    data: list[_Event] | None = None


class _Runs(msgspec.Struct):
    data: list[EventRun] | None = None


class _RunAnswer(msgspec.Struct):
    data: EventRun | None = None


class _Trigger(msgspec.Struct):
    condition: str | None = msgspec.field(name="if", default=None)


class _Function(msgspec.Struct):
    triggers: list[_Trigger] = []
    configuration: dict[str, object] = {}


class _FunctionAnswer(msgspec.Struct):
    data: _Function | None = None


class _FirstRun(msgspec.Struct):
    run_id: str
    status: str


class _RunIds(_Status):
    data: list[_FirstRun] | None = None


class _StatusAnswer(_Status):
    data: _FirstRun | None = None


class RestApi:
    """Questions to Inngest's REST API at `origin`. `signing_key` None asks without one.

    `second_api` is the path of the API that has runs with their outputs. `environment` is the one
    that a question asks in where it names no other. Every question raises InngestApiError where it
    gets no usable answer.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        origin: str,
        signing_key: str | None,
        environment: str | None,
        timeout_seconds: float,
        second_api: str = "/api/v2",
    ) -> None:
        self._session = session
        self._second_api = second_api
        self._origin = origin.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._seconds = timeout_seconds
        self._headers = {"Authorization": f"Bearer {signing_key}"} if signing_key else {}
        self._page_events = MAX_PAGE
        if environment:
            self._headers[ENVIRONMENT_HEADER] = environment

    async def page(
        self, before: str, limit: int, environment: str | None = None, *, name: str | None = None
    ) -> Sequence[HeldEvent]:
        """The newest events with a ULID below `before`, newest first, at most `limit`.

        Fewer where the events are too large for one answer, or while answers are slow. `name` None
        lists those of all names.
        """
        chosen = {"name": name} if name else {}
        while True:
            limit = min(limit, self._page_events)
            query = {"cursor": before, "limit": str(limit), "received_after": _LONG_AGO, **chosen}
            began_at = time.monotonic()
            try:
                body = await self._get("/v1/events", query, environment)
            finally:
                self._learn(limit, time.monotonic() - began_at)
            if body is not None:
                break
            if limit == 1:
                raise InngestApiError("Inngest's answer about one event is too large.")
            limit //= 2
        answer = _found(body, _Page)
        return [HeldEvent(one.internal_id, one.id) for one in answer.data or ()]

    async def used_before(
        self, ulid: str, event_id: str, name: str, environment: str | None = None
    ) -> str | None:
        """The ULID of another event with this id and name in the 24 hours before; None for none.

        Inngest runs nothing for the later one. Reads the 200 events before it at most.
        """
        since, before = (decode_ulid(ulid) >> _RANDOM_BITS) - USED_MS, ulid
        for _ in range(_PAGES_BEFORE):
            page = await self.page(before, MAX_PAGE, environment, name=name)
            for one in page:
                if decode_ulid(one.ulid) >> _RANDOM_BITS < since:
                    return None
                if one.event_id == event_id:
                    return one.ulid
            if not page:
                break
            before = page[-1].ulid
        return None

    async def run_ids(
        self, ulid: str, environment: str | None = None, *, thorough: bool = False
    ) -> Sequence[str]:
        """The ids of an event's runs, none for an unknown event.

        Only a `thorough` question, which costs the server a search through everything, finds the
        run of a batch by each of its events.
        """
        if thorough:
            body = await self._get(f"{self._second_api}/events/{ulid}/runs", {}, environment)
            return [run.id for run in _decoded(body or b"", _Runs).data or ()]
        return list(await self.run_words(ulid, environment))

    async def run_words(self, ulid: str, environment: str | None = None) -> Mapping[str, str]:
        """Inngest's word for each run that `run_ids` gives; it may be seconds behind."""
        # Inngest repeats an answer for 15 s to the same query.
        query = {"at": str(time.time_ns())}
        body = await self._get(f"/v1/events/{ulid}/runs", query, environment)
        return {run.run_id: run.status for run in _found(body or b"", _RunIds).data or ()}

    async def run(self, run_id: str, environment: str | None = None) -> EventRun | None:
        """A run with its output, None where Inngest does not show it yet."""
        query = {"includeOutput": "true"}
        path = f"{self._second_api}/runs/{run_id}"
        body = await self._get(path, query, environment, may_be_missing=True)
        run = _decoded(body, _RunAnswer).data if body else None
        if run is None or run.ended_at is None or run.status.lower() not in _UNDECIDED:
            return run
        # The first API has the status of an ended run right.
        body = await self._get(f"/v1/runs/{run_id}", {}, environment)
        told = _found(body or b"", _StatusAnswer).data
        return run if told is None else msgspec.structs.replace(run, status=told.status)

    async def may_skip(
        self, app: str, function: str, environment: str | None = None
    ) -> bool | None:
        """True where a function may leave an event of its trigger without a run of its own.

        It has a rate limit, a debounce, a batch or a condition, or runs one at a time. None where
        Inngest does not tell.
        """
        path = f"{self._second_api}/apps/{quote(app, safe='')}/functions/{quote(function, safe='')}"
        body = await self._get(path, {}, environment, may_be_missing=True)
        told = _decoded(body, _FunctionAnswer).data if body else None
        if told is None:
            return None
        has_condition = any(one.condition for one in told.triggers)
        return has_condition or any(told.configuration.get(name) for name in _SKIPPING)

    def _learn(self, limit: int, seconds: float) -> None:
        """Ask for fewer events after a slow answer, for more again after a fast one."""
        if seconds > self._seconds * _SLOW_SHARE:
            self._page_events = max(1, limit // 2)
        elif seconds < self._seconds * _FAST_SHARE and limit == self._page_events:
            self._page_events = min(MAX_PAGE, limit * 2)

    async def _get(
        self,
        path: str,
        query: Mapping[str, str],
        environment: str | None,
        *,
        may_be_missing: bool = False,
    ) -> bytes | None:
        """The answer's body, None when it is too large, or for 404 where it may be missing."""
        headers = self._headers
        if environment is not None:
            headers = {**headers, ENVIRONMENT_HEADER: environment}
        try:
            async with self._session.get(
                self._origin + path,
                params=query,
                headers=headers,
                timeout=self._timeout,
                allow_redirects=False,
            ) as response:
                if response.status in _REFUSED:
                    raise InngestApiError(_refusal(environment), refused=True)
                if response.status == _NOT_FOUND and may_be_missing:
                    return None
                if response.status != _OK:
                    raise InngestApiError(f"Inngest answers {response.status} to questions.")
                body = await response.content.read(_MAX_ANSWER_BYTES)
                while not response.content.at_eof() and len(body) < _MAX_ANSWER_BYTES:
                    body += await response.content.read(_MAX_ANSWER_BYTES)
                return body if len(body) < _MAX_ANSWER_BYTES else None
        except TimeoutError as error:
            raise InngestApiError("Inngest gave no answer in time.") from error
        except (aiohttp.ClientError, OSError) as error:
            raise InngestApiError(
                f"Inngest can't be asked ({type(error).__name__}).", reached=False
            ) from error


def make_rest_api(
    settings: Settings, http: aiohttp.ClientSession, *, timeout_seconds: float
) -> RestApi | None:
    """Inngest's REST API, None where it can't be asked: it wants a signing key or a dev server."""
    if not confirmation_mode(settings).can_ask:
        return None
    address = inngest_address(settings)
    return RestApi(
        http,
        origin=_origin(settings, address),
        signing_key=plain(settings.inngest_signing_key),
        environment=address.environment,
        timeout_seconds=timeout_seconds,
        second_api="/v2" if destination(settings) is Destination.CLOUD else "/api/v2",
    )


def _origin(settings: Settings, address: InngestAddress) -> str:
    """The REST API's origin: beside the Event API when only that one's address is given."""
    elsewhere = settings.inngest_api_base_url or settings.inngest_base_url
    if settings.inngest_event_api_base_url and not elsewhere:
        return address.event_api_origin
    return address.api_origin


def _refusal(environment: str | None) -> str:
    if environment is None:
        return "Inngest refuses INNGEST_SIGNING_KEY."
    return f"Inngest refuses INNGEST_SIGNING_KEY for the environment {environment!r}."


def _found(body: bytes, form: type[_Answer]) -> _Answer:
    answer = _decoded(body, form)
    if answer.status not in (_OK, _NOT_FOUND):
        raise InngestApiError(f"Inngest answers {answer.status} to questions.")
    return answer


def _decoded(body: bytes, form: type[_Form]) -> _Form:
    """The answer. A function's output, which is in it, may have what is not Unicode."""
    try:
        return msgspec.json.decode(body, type=form)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return msgspec.json.decode(repaired(body), type=form)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InngestApiError("An answer that is not the API's.") from error
