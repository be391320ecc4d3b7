"""The operators' pages under /outbox, mounted together.

For operators only. Reading and repairing work without JavaScript. Each change is confirmed first
and passes the cross-site check.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from aiohttp import web

from service.console.pages.overview import Overview
from service.web.openapi.endpoint import Endpoint


class Part(Protocol):
    """Some of the pages."""

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        ...


class OperatorPage:
    """All pages. `close` ends the live streams, so that no stop waits for them."""

    def __init__(self, overview: Overview, *others: Part) -> None:
        self._overview = overview
        self._others = others

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        parts: list[Part] = [self._overview, *self._others]
        return [route for part in parts for route in part.routes()]

    def endpoints(self) -> Sequence[Endpoint]:
        """Pages for people are no part of the API's description."""
        return ()

    async def close(self, app: web.Application) -> None:
        """End the live streams."""
        del app
        await self._overview.close()
