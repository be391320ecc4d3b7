"""Reading Inngest's REST API: which events it holds and what became of their runs.

The invariant: nothing raised here holds the signing key, and "not found", which the API answers
with 200 and a status in the body, is never taken for an event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import aiohttp
import msgspec

from service.config.destination import confirmation_mode
from service.config.inngest_address import InngestAddress
from service.config.settings import Settings
from service.config.values import plain
from service.errors import InngestApiError
from service.inngest.address import inngest_address
from service.inngest.held import HeldEvent
from service.outbox.inngest_id import ENVIRONMENT_HEADER
from service.outbox.storable import repaired

_MAX_ANSWER_BYTES = 32 * 1024 * 1024
_OK = 200
_UNAUTHORIZED = 401
_NOT_FOUND = 404
_LONG_AGO = "1980-01-01T00:00:00Z"  # without it Inngest lists the last hour only

_Answer = TypeVar("_Answer", bound="_Status")


class _Status(msgspec.Struct):
    error: str | None = None
    status: int = _OK


class _Event(msgspec.Struct):
    internal_id: str
    id: str = ""


class _EventAnswer(_Status):
    data: _Event | None = None


class _Page(_Status):
    data: list[_Event] | None = None


class EventRun(msgspec.Struct, frozen=True):
    """A run that an event started. `output` is what its function returned, None before its end."""

    run_id: str
    status: str
    run_started_at: str | None = None
    ended_at: str | None = None
    output: object = None


class _Runs(_Status):
    data: list[EventRun] | None = None


class RestApi:
    """Questions to `GET {origin}/v1/events`. `signing_key` None asks without one.

    `environment` is the one that a question asks in where it names no other.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        origin: str,
        signing_key: str | None,
        environment: str | None,
        timeout_seconds: float,
    ) -> None:
        self._session = session
        self._base = f"{origin.rstrip('/')}/v1/events"
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._headers = {"Authorization": f"Bearer {signing_key}"} if signing_key else {}
        if environment:
            self._headers[ENVIRONMENT_HEADER] = environment

    async def page(
        self, before: str, limit: int, environment: str | None = None
    ) -> Sequence[HeldEvent]:
        """The newest events with a ULID below `before`, newest first, at most `limit`.

        Fewer where the events are too large for one answer. Raises InngestApiError.
        """
        while True:
            query = {"cursor": before, "limit": str(limit), "received_after": _LONG_AGO}
            body = await self._get(self._base, query, environment)
            if body is not None:
                break
            if limit == 1:
                raise InngestApiError("Inngest's answer about one event is too large.")
            limit //= 2
        answer = _decoded(body, _Page)
        return [HeldEvent(one.internal_id, one.id) for one in answer.data or ()]

    async def find(self, ulid: str, environment: str | None = None) -> HeldEvent | None:
        """One event, None when Inngest does not hold it. May be 5 s old. Raises InngestApiError."""
        body = await self._get(f"{self._base}/{ulid}", {}, environment)
        answer = _decoded(body or b"", _EventAnswer)
        if answer.data is None:
            return None
        return HeldEvent(answer.data.internal_id, answer.data.id)

    async def runs(self, ulid: str, environment: str | None = None) -> Sequence[EventRun]:
        """The runs of an event, none for an unknown one. May be 15 s old.

        Raises InngestApiError.
        """
        body = await self._get(f"{self._base}/{ulid}/runs", {}, environment)
        return _decoded(body or b"", _Runs).data or ()

    async def _get(
        self, url: str, query: Mapping[str, str], environment: str | None
    ) -> bytes | None:
        """The answer's body, None when it is too large."""
        headers = self._headers
        if environment is not None:
            headers = {**headers, ENVIRONMENT_HEADER: environment}
        try:
            async with self._session.get(
                url,
                params=query,
                headers=headers,
                timeout=self._timeout,
                allow_redirects=False,
            ) as response:
                if response.status == _UNAUTHORIZED:
                    raise InngestApiError("Inngest refuses INNGEST_SIGNING_KEY.")
                if response.status != _OK:
                    raise InngestApiError(f"Inngest answers {response.status} to questions.")
                body = await response.content.read(_MAX_ANSWER_BYTES)
                while not response.content.at_eof() and len(body) < _MAX_ANSWER_BYTES:
                    body += await response.content.read(_MAX_ANSWER_BYTES)
                return body if len(body) < _MAX_ANSWER_BYTES else None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise InngestApiError(
                f"Inngest can't be asked ({type(error).__name__}).", reached=False
            ) from error


def _decoded(body: bytes, form: type[_Answer]) -> _Answer:
    try:
        answer = _read(body, form)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InngestApiError("An answer that is not the API's.") from error
    if answer.status not in (_OK, _NOT_FOUND):
        raise InngestApiError(f"Inngest answers {answer.status} to questions.")
    return answer


def _read(body: bytes, form: type[_Answer]) -> _Answer:
    """The answer. A function's output, which is in it, may have what is not Unicode."""
    try:
        return msgspec.json.decode(body, type=form)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return msgspec.json.decode(repaired(body), type=form)


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
    )


def _origin(settings: Settings, address: InngestAddress) -> str:
    """Where the REST API is: beside the Event API when only that one's address is given."""
    elsewhere = settings.inngest_api_base_url or settings.inngest_base_url
    if settings.inngest_event_api_base_url and not elsewhere:
        return address.event_api_origin
    return address.api_origin
