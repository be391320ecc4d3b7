"""POST /e/{key}: Inngest's own intake protocol, so that every Inngest SDK posts here unchanged.

Answers as Inngest's server does, in its form and with the ids that Inngest will give. The
invariant: the events that an answer names are in one synced commit before it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec
from aiohttp import hdrs, web
from msgspec import Meta

from inngest_outbox.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    EventKeyRequiredError,
    IdempotencyKeyReusedError,
    InvalidFieldError,
    NotFoundError,
    OutboxUnavailableError,
    RefusedError,
    TooManyPendingError,
)
from inngest_outbox.identity.user import User
from inngest_outbox.observe.recorder import Recorder
from inngest_outbox.outbox.event_ids import USED_MS
from inngest_outbox.outbox.inngest_id import ENVIRONMENT_HEADER, SEED_HEADER, InngestIds
from inngest_outbox.outbox.keys import Receipt
from inngest_outbox.web.intake.event_batch import MAX_BATCH_BYTES, BatchRequest, EventBatches
from inngest_outbox.web.intake.event_examples import EVENTS_BODY
from inngest_outbox.web.intake.incoming import request_meta
from inngest_outbox.web.intake.lenient_json import NO_EVENTS
from inngest_outbox.web.openapi.endpoint import (
    MAY_BE_RETRIED,
    RETRY_AFTER,
    Access,
    Answer,
    Endpoint,
    Parameter,
)
from inngest_outbox.web.server.body import read_raw_body
from inngest_outbox.web.server.errors import STATUS
from inngest_outbox.web.signin.auth import EventKeyAuth

KEY_NOT_FOUND = "Event key not found"
OWN_EVENTS = "These are this service's own events: its INNGEST_* variables name itself, not Inngest"
MAX_ENVIRONMENTS = 32
_MAX_ENVIRONMENT_CHARS = 255
_TEXT = "text/plain"
_NO_IDS = ("",)  # what Inngest answers instead of an empty list
_is_seed = re.compile(r"[1-9][0-9]{0,14},[A-Za-z0-9+/]{14}==").fullmatch
_encode = msgspec.json.Encoder().encode
_EXAMPLE_IDS = ["01KB08Z4Q0XW5M7T3Y8S000017"]


class Reply(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The protocol's answer."""

    ids: Annotated[
        Sequence[str],
        Meta(description="Inngest's id of each event that was taken; one empty id for none."),
    ]
    status: int
    error: str | None = None


class InngestIntake:
    """The handler of the protocol. Where there are no keys there is no such path.

    A request under a seed that `ids` made is this outbox's own: taking it would count its events as
    delivered, and Inngest would never get them.
    """

    def __init__(
        self,
        auth: EventKeyAuth,
        batches: EventBatches,
        recorder: Recorder,
        ids: Callable[[], InngestIds | None],
    ) -> None:
        self._auth = auth
        self._batches = batches
        self._recorder = recorder
        self._ids = ids
        self._environments: dict[str, set[str]] = {}

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [web.post("/e/{key}", self.post)]

    def endpoints(self) -> list[Endpoint]:
        """The entries of the API's description."""
        key = Parameter("key", "One of the keys in OUTBOX_EVENT_KEYS.", place="path")
        return [
            Endpoint(
                method="POST",
                path="/e/{key}",
                name="sendEvents",
                tag="events",
                summary="Inngest's own intake protocol, for every Inngest SDK",
                access=Access.ANYBODY,
                parameters=[
                    key,
                    Parameter(ENVIRONMENT_HEADER, "The Inngest environment.", place="header"),
                    Parameter(
                        SEED_HEADER, "The same seed again repeats a request.", place="header"
                    ),
                ],
                body=EVENTS_BODY,
                answers={
                    200: _described("All events are on disk and will be delivered", 200),
                    400: _described("The events before a bad one were taken", 400, NO_EVENTS),
                    401: _described("The key is unknown", 401, KEY_NOT_FOUND),
                    403: _described("The service has sent to itself", 403, OWN_EVENTS),
                    **{
                        STATUS[kind]: _described(str(kind()), STATUS[kind], str(kind()))
                        for kind in (
                            BodyTimeoutError,
                            BodyTooLargeError,
                            TooManyPendingError,
                            OutboxUnavailableError,
                        )
                    },
                },
                errors=(NotFoundError,),
            )
        ]

    async def post(self, request: web.Request) -> web.Response:
        """Accept the events of a request."""
        try:
            machine = self._auth.by_key(request.match_info["key"])
            if machine is None:
                self._recorder.count("refused", code=EventKeyRequiredError.code)
                return _response(Reply([], 401, KEY_NOT_FOUND))
            return await self._accept(request, machine)
        except NotFoundError:
            raise
        except (RefusedError, OutboxUnavailableError) as error:
            self._recorder.count("refused", code=error.code)
            return _refusal(error)

    async def _accept(self, request: web.Request, machine: User) -> web.Response:
        environment = self._environment(request, machine)
        seed = request.headers.get(SEED_HEADER, "")
        if not _is_seed(seed):
            seed = ""
        elif (made_by := self._ids()) and made_by.made(seed):
            return _response(Reply([], 403, OWN_EVENTS))
        batch = BatchRequest(
            user=machine,
            body=await read_raw_body(request, max_bytes=MAX_BATCH_BYTES, owner=machine.owner),
            meta=request_meta(request, environment),
            mark=f"seed {seed}" if seed else None,
            mark_seconds=USED_MS / 1000,
            partly=True,
        )
        receipts, error = await self._stored(batch)
        ids = [receipt.inngest_id for receipt in receipts]
        return _response(Reply(ids or _NO_IDS, 400 if error else 200, error))

    def _environment(self, request: web.Request, machine: User) -> str | None:
        """The Inngest environment of a request; InvalidFieldError for one that is not taken.

        Each has questions and a place in the figures of its own, so a key has a few only.
        """
        given = request.headers.get(ENVIRONMENT_HEADER)
        if not given:
            return None
        # Browsers and Node send one byte a letter where others send UTF-8.
        name = given if _is_unicode(given) else _bytes(given).decode("latin-1")
        if len(name) > _MAX_ENVIRONMENT_CHARS or not name.isprintable():
            raise InvalidFieldError(f"{ENVIRONMENT_HEADER} is not a name in printable characters.")
        known = self._environments.setdefault(machine.id, set())
        if name not in known and len(known) >= MAX_ENVIRONMENTS:
            raise InvalidFieldError(
                f"{ENVIRONMENT_HEADER}: a key has at most {MAX_ENVIRONMENTS} environments."
            )
        known.add(name)
        return name

    async def _stored(self, batch: BatchRequest) -> tuple[Sequence[Receipt], str | None]:
        try:
            return await self._batches.accept(batch)
        except IdempotencyKeyReusedError:
            # A client that sends other events under a seed means other events.
            return await self._batches.accept(dataclasses.replace(batch, mark=None))


def _described(text: str, status: int, error: str | None = None) -> Answer:
    ids = _EXAMPLE_IDS if status == web.HTTPOk.status_code else list(_NO_IDS)
    example = {"ids": ids, "status": status} | ({"error": error} if error else {})
    headers = [RETRY_AFTER] if status in MAY_BE_RETRIED else []
    return Answer(text, Reply, example, content_type=_TEXT, headers=headers, is_json_in_text=True)


def _refusal(error: RefusedError | OutboxUnavailableError) -> web.Response:
    response = _response(Reply(_NO_IDS, STATUS[type(error)], str(error)))
    if error.retry_after_seconds is not None:
        response.headers[hdrs.RETRY_AFTER] = str(error.retry_after_seconds)
    return response


def _response(reply: Reply) -> web.Response:
    # Inngest's server calls its JSON text/plain, and ends it with a line.
    body = _encode(reply) + b"\n"
    return web.Response(status=reply.status, body=body, content_type=_TEXT, charset="utf-8")


def _is_unicode(text: str) -> bool:
    return all(not "\ud800" <= letter <= "\udfff" for letter in text)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
