"""The audit as a page: what operators did, newest first."""

from __future__ import annotations

from aiohttp import web

from service.console.operations.views import delivery_view
from service.console.pages.access import OperatorAccess
from service.console.pages.filter_form import read_number
from service.console.pages.renderer import Renderer
from service.outbox.ports import Inspector

PATH = "/outbox/audit"
_PAGE = 50
_MOST = 1_000
_IDS_SHOWN = 200


class AuditPage:
    """The handler."""

    def __init__(self, inspector: Inspector, access: OperatorAccess, renderer: Renderer) -> None:
        self._inspector = inspector
        self._access = access
        self._renderer = renderer

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [web.get(PATH, self.show)]

    async def show(self, request: web.Request) -> web.Response:
        """The latest acts; with `event`, those that changed an event whose id begins with it."""
        await self._access.actor(request)
        event = request.query.get("event", "").strip()
        limit = min(_MOST, max(1, read_number(request.query, "limit") or _PAGE))
        acts = await self._inspector.audit(limit + 1, event=event or None)
        delivery = await self._inspector.load_delivery()
        return self._renderer.page(
            "audit.html",
            title="Audit",
            here=PATH,
            delivery=delivery_view(delivery),
            acts=acts[:limit],
            event=event,
            ids_shown=_IDS_SHOWN,
            more=min(_MOST, limit * 2) if len(acts) > limit and limit < _MOST else None,
        )
