"""POST /api/events: events of machines, with an event key as the bearer token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from inngest_outbox.web.intake.event_batch import MAX_BATCH_BYTES, BatchRequest, EventBatches
from inngest_outbox.web.intake.event_examples import DELAYED_EVENTS_BODY, POST_REFUSALS, REPLAYED
from inngest_outbox.web.intake.idempotency import IDEMPOTENCY_PARAMETER, given_key
from inngest_outbox.web.intake.incoming import request_meta
from inngest_outbox.web.openapi.endpoint import Access, Answer, Endpoint
from inngest_outbox.web.server.answers import json_answer
from inngest_outbox.web.server.body import check_utf8, read_json_bytes
from inngest_outbox.web.signin.auth import MACHINE_REFUSALS, EventKeyAuth


class AcceptedEvents(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The answer to accepted events, in their order."""

    status: Literal["ok"]
    ids: Annotated[Sequence[str], Meta(description="Inngest's ids of the events.")]
    event_ids: Annotated[Sequence[str], Meta(description="The service's ids of the events.")]


class MachineEvents:
    """The handler. Where there are no keys there is no such path."""

    def __init__(self, auth: EventKeyAuth, batches: EventBatches) -> None:
        self._auth = auth
        self._batches = batches

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [web.post("/api/events", self.post)]

    def endpoints(self) -> list[Endpoint]:
        """The entries of the API's description."""
        example = {
            "status": "ok",
            "ids": ["01KB08Z4Q0XW5M7T3Y8S000017"],
            "eventIds": ["019aa0a7-3a17-7a51-9d9a-6d2f0f5a9a10"],
        }
        return [
            Endpoint(
                method="POST",
                path="/api/events",
                name="sendMachineEvents",
                tag="events",
                summary="Events of any name from a machine with an event key",
                access=Access.EVENT_KEY,
                parameters=[IDEMPOTENCY_PARAMETER],
                body=DELAYED_EVENTS_BODY,
                answers={
                    200: Answer(
                        "All are on disk and will be delivered",
                        AcceptedEvents,
                        example,
                        headers=[REPLAYED],
                    )
                },
                errors=(*MACHINE_REFUSALS, *POST_REFUSALS),
            )
        ]

    async def post(self, request: web.Request) -> web.Response:
        """Accept all events of a request or none."""
        machine = self._auth.machine(request)
        key = given_key(request)
        body = await read_json_bytes(request, max_bytes=MAX_BATCH_BYTES, owner=machine.owner)
        check_utf8(body)
        batch = BatchRequest(
            user=machine,
            body=body,
            meta=request_meta(request),
            takes_send_at=True,
            mark=f"key {key}" if key else None,
        )
        receipts, _ = await self._batches.accept(batch)
        ids = [receipt.inngest_id for receipt in receipts]
        answer = AcceptedEvents("ok", ids, [receipt.event_id for receipt in receipts])
        is_repeat = bool(receipts) and all(receipt.replayed for receipt in receipts)
        headers = {REPLAYED.name: "true"} if is_repeat else {}
        return json_answer(answer, headers=headers)
