"""The overview of the operators' pages: delivery, figures, charts, the newest dead events.

It works without JavaScript. With it the figures are live, by server-sent events that end when the
service stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from typing import Protocol

import msgspec
from aiohttp import web

from service.console.operations.rates import Movement
from service.console.operations.views import PAUSED
from service.console.pages.access import OperatorAccess
from service.console.pages.chart_source import ChartSource
from service.console.pages.charts import HOUR, SPANS, Span
from service.console.pages.figures import delivery_words, figures
from service.console.pages.renderer import Renderer
from service.errors import OutboxUnavailableError
from service.outbox.clock import wall_now_ms
from service.outbox.model import Filter, State
from service.outbox.ports import Inspector
from service.web.server.answers import event_source

PATH = "/outbox"
_DEAD_SHOWN = 10
_DRAW_SECONDS = 20.0
_DONE = {
    "paused": "Delivery is paused. Posts are still accepted.",
    "resumed": "Delivery is resumed.",
}


class Watched(Protocol):
    """The samples of the outbox."""

    @property
    def latest(self) -> Movement | None:
        """The latest sample, None before the first."""
        ...

    async def sample(self) -> None:
        """Take a sample now."""
        ...

    def watch(self) -> AsyncGenerator[Movement, None]:
        """The latest sample, then each new one."""
        ...


class Overview:
    """The handlers. `close` ends the live streams, so that no stop waits for them."""

    def __init__(
        self,
        inspector: Inspector,
        watched: Watched,
        drawn: ChartSource,
        access: OperatorAccess,
        renderer: Renderer,
    ) -> None:
        self._inspector = inspector
        self._watched = watched
        self._drawn = drawn
        self._access = access
        self._renderer = renderer
        self._streams: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [
            web.get(PATH, self.show),
            web.get(f"{PATH}/live", self.live, allow_head=False),
        ]

    async def close(self) -> None:
        """End the live streams, and each that begins from now on."""
        self._is_closed = True
        for stream in self._streams:
            stream.cancel()

    async def show(self, request: web.Request) -> web.Response:
        """The page."""
        await self._access.actor(request)
        await self._watched.sample()
        latest = self._watched.latest
        delivery = latest.view.delivery if latest else None
        dead = await self._inspector.rows(Filter(state=State.DEAD, limit=_DEAD_SHOWN))
        span = _span(request)
        return self._renderer.page(
            "overview.html",
            title="Overview",
            here=PATH,
            notice=_DONE.get(request.query.get("done", ""), ""),
            delivery=delivery,
            delivery_words=delivery_words(latest.view) if latest else "Not known yet.",
            paused=delivery is not None and delivery.state == PAUSED,
            figures=figures(latest) if latest else None,
            span=span.name,
            charts=await self._drawn.charts(span),
            chart_rows=await self._drawn.rows(span),
            dead=dead,
            dead_count=latest.view.dead if latest else len(dead),
            now_ms=wall_now_ms(),
        )

    async def live(self, request: web.Request) -> web.StreamResponse:
        """The figures as they change, as server-sent events."""
        await self._access.actor(request)
        response = event_source(request)
        await response.prepare(request)
        work = self._stream(response, _span(request))
        stream = asyncio.create_task(work, name="operator-page-live")
        self._streams.add(stream)
        if self._is_closed:
            stream.cancel()
        try:
            await asyncio.wait([stream])
        finally:
            stream.cancel()
            self._streams.discard(stream)
        return response

    async def _stream(self, response: web.StreamResponse, span: Span) -> None:
        watch = contextlib.aclosing(self._watched.watch())
        with contextlib.suppress(ConnectionError, OutboxUnavailableError):
            async with watch as samples:
                drawn_at = -_DRAW_SECONDS
                async for latest in samples:
                    events = _figure_events(latest)
                    if time.monotonic() - drawn_at >= _DRAW_SECONDS:
                        drawn_at = time.monotonic()
                        drawn = await self._drawn.charts(span)
                        html = self._renderer.part("charts.html", charts=drawn)
                        events += _event("charts", html)
                    await response.write(events.encode())


def _figure_events(latest: Movement) -> str:
    texts = msgspec.json.encode(figures(latest).texts()).decode()
    return (
        _event("figures", texts)
        + _event("state", latest.view.delivery.state if latest.view.delivery else "unknown")
        + _event("delivery", delivery_words(latest.view))
        + _event("dead", str(latest.view.dead))
    )


def _event(name: str, body: str) -> str:
    data = "".join(f"data: {line}\n" for line in body.splitlines() or [""])
    return f"event: {name}\n{data}\n"


def _span(request: web.Request) -> Span:
    return SPANS.get(request.query.get("span", ""), HOUR)
