"""The event names as a page: how fast they are held, whether they have runs, how these end."""

from __future__ import annotations

from aiohttp import web

from service.console.operations.explain import spoken_duration
from service.console.operations.views import delivery_view
from service.console.pages.access import OperatorAccess
from service.console.pages.renderer import Renderer
from service.identity.scopes import Scopes
from service.outbox.ports import Inspector
from service.runs.kept_names import load_names

PATH = "/outbox/names"


class NamesPage:
    """The handler."""

    def __init__(
        self, inspector: Inspector, scopes: Scopes, access: OperatorAccess, renderer: Renderer
    ) -> None:
        self._inspector = inspector
        self._scopes = scopes
        self._access = access
        self._renderer = renderer

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [web.get(PATH, self.show)]

    async def show(self, request: web.Request) -> web.Response:
        """The names, those that miss their runs first."""
        await self._access.actor(request)
        kept = await load_names(self._scopes)
        delivery = await self._inspector.load_delivery()
        return self._renderer.page(
            "names.html",
            title="Names",
            here=PATH,
            delivery=delivery_view(delivery),
            kept=kept,
            names=sorted(kept.names, key=lambda one: (one.no_run_since is None, one.name)),
            spoken=_spoken,
        )


def _spoken(median: float | None, p95: float | None) -> str:
    if median is None or p95 is None:
        return ""
    return f"{spoken_duration(median)} ({spoken_duration(p95)})"
