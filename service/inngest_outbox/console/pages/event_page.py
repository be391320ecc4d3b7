"""The page of one event: its timeline, the reason for its state, and what an operator can do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from inngest_outbox.console.operations.actions import Payloads
from inngest_outbox.console.operations.bulk import actions_on
from inngest_outbox.console.operations.explain import explain
from inngest_outbox.console.operations.timeline import timeline, troubles
from inngest_outbox.console.operations.views import delivery_view, payload_text
from inngest_outbox.console.pages.desk import Desk
from inngest_outbox.console.pages.filter_form import PATH
from inngest_outbox.encryption import MARK
from inngest_outbox.errors import NotFoundError
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.outbox.figures import MINUTE_MS, Sample
from inngest_outbox.outbox.model import DeliveryRecord, Filter, Row
from inngest_outbox.outbox.ports import Inspector, Samples


@dataclass(slots=True)
class EventPage:
    """The handlers. `link` gives the address of an event in Inngest by its ULID."""

    inspector: Inspector
    samples: Samples
    payloads: Payloads
    desk: Desk
    link: Callable[[str], str | None]

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [
            web.get(f"{PATH}/{{id}}", self.show),
            web.post(f"{PATH}/{{id}}/payload", self.payload),
        ]

    async def show(self, request: web.Request) -> web.Response:
        """The page without the payload."""
        actor = await self.desk.actor(request)
        return await self._page(request, actor, await self._row(request), None)

    async def payload(self, request: web.Request) -> web.Response:
        """The page with the payload. The audit records it."""
        actor = await self.desk.actor(request)
        row = await self._row(request)
        shown = await self.payloads.show(row.id, actor=actor)
        return await self._page(request, actor, row, shown)

    async def _row(self, request: web.Request) -> Row:
        wanted = Filter(ids=(request.match_info["id"],), limit=1)
        rows = await self.inspector.rows(wanted)
        if not rows:
            raise NotFoundError("There is no such event.")
        return rows[0]

    async def _page(
        self, request: web.Request, actor: str, row: Row, payload: bytes | None
    ) -> web.Response:
        delivery = await self.inspector.load_delivery()
        now_ms = wall_now_ms()
        why = explain(row, delivery, now_ms=now_ms, serving=True, commands=False)
        until_ms = row.settled_at_ms or now_ms
        seen = await self.samples.between(row.accepted_at_ms - MINUTE_MS, until_ms)
        if row.settled_at_ms is None:
            seen.append(_sample_of(delivery, now_ms))
        return await self.desk.page(
            request,
            "event.html",
            actor=actor,
            title=f"Event {row.id}",
            here=PATH,
            row=row,
            explanation=why[:1].upper() + why[1:],
            actions=actions_on(row.state),
            moments=timeline(row, troubles(seen)),
            run_url=self.link(row.inngest_id) if row.inngest_id and row.sends else None,
            payload=payload_text(payload).split("\n") if payload else None,
            is_encrypted=payload is not None and MARK.encode() in payload,
        )


def _sample_of(delivery: DeliveryRecord, now_ms: int) -> Sample:
    """The state of delivery in the current minute."""
    view = delivery_view(delivery)
    return Sample(now_ms, 0, 0, 0.0, 0.0, view.state, view.reason or "")
