"""Pause and resume from the pages, with a reason for the audit."""

from __future__ import annotations

from aiohttp import web

from service.console.pages.access import OperatorAccess, read_form, see_other
from service.console.pages.renderer import Renderer
from service.outbox.ports import Repairs

_PAUSE, _RESUME = "/outbox/pause", "/outbox/resume"
_MAX_REASON_CHARS = 200


class Pausing:
    """The handlers of the pages."""

    def __init__(self, repairs: Repairs, access: OperatorAccess, renderer: Renderer) -> None:
        self._repairs = repairs
        self._access = access
        self._renderer = renderer

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [web.post(_PAUSE, self.pause), web.post(_RESUME, self.resume)]

    async def pause(self, request: web.Request) -> web.Response:
        """Ask for the reason, then pause delivery."""
        return await self._set(request, paused=True)

    async def resume(self, request: web.Request) -> web.Response:
        """Ask for the reason, then resume delivery."""
        return await self._set(request, paused=False)

    async def _set(self, request: web.Request, *, paused: bool) -> web.Response:
        actor = await self._access.actor(request)
        given = await read_form(request)
        if given.get("confirmed") != "yes":
            title = "Pause delivery?" if paused else "Resume delivery?"
            return self._renderer.page("pause.html", title=title, here="/outbox", paused=paused)
        reason = given.get("reason", "").strip()[:_MAX_REASON_CHARS]
        await self._repairs.set_paused(paused=paused, actor=actor, reason=reason)
        return see_other(f"/outbox?done={'paused' if paused else 'resumed'}")
