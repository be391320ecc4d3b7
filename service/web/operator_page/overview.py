"""The overview of the operators' pages: delivery, figures, charts, the newest dead events.

It works without JavaScript. With it the figures are live, by server-sent events that end when the
service stops.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Protocol

import msgspec
from aiohttp import hdrs, web

from service.operations.rates import Movement
from service.operations.sampler import Point
from service.operations.views import PAUSED
from service.outbox.clock import wall_now_ms
from service.outbox.model import Filter, State
from service.outbox.ports import Inspector
from service.web.operator_page.access import OperatorAccess
from service.web.operator_page.charts import HOUR, SPANS, Span, charts
from service.web.operator_page.figures import delivery_words, figures
from service.web.operator_page.renderer import Renderer

PATH = "/outbox"
_DEAD_SHOWN = 10
_DONE = {
    "paused": "Delivery is paused. Posts are still accepted.",
    "resumed": "Delivery is resumed.",
}


class Samples(Protocol):
    """What was seen of the outbox lately."""

    @property
    def latest(self) -> Movement | None:
        """The latest sample, None before the first."""
        ...

    @property
    def hour(self) -> tuple[Point, ...]:
        """The samples of the last hour, oldest first."""
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
        self, inspector: Inspector, samples: Samples, access: OperatorAccess, renderer: Renderer
    ) -> None:
        self._inspector = inspector
        self._samples = samples
        self._access = access
        self._renderer = renderer
        self._streams: set[asyncio.Task[None]] = set()

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [
            web.get(PATH, self.show),
            web.get(f"{PATH}/live", self.live, allow_head=False),
        ]

    async def close(self) -> None:
        """End the live streams."""
        for stream in self._streams:
            stream.cancel()

    async def show(self, request: web.Request) -> web.Response:
        """The page."""
        await self._access.actor(request)
        await self._samples.sample()
        latest = self._samples.latest
        delivery = latest.view.delivery if latest else None
        dead = await self._inspector.rows(Filter(state=State.DEAD, limit=_DEAD_SHOWN))
        span = _span(request)
        now_ms = wall_now_ms()
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
            charts=charts(self._samples.hour, span, now_ms),
            dead=dead,
            dead_count=latest.view.dead if latest else len(dead),
            now_ms=now_ms,
        )

    async def live(self, request: web.Request) -> web.StreamResponse:
        """The figures as they change, as server-sent events."""
        await self._access.actor(request)
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "text/event-stream"})
        await response.prepare(request)
        work = self._stream(response, _span(request))
        stream = asyncio.create_task(work, name="operator-page-live")
        self._streams.add(stream)
        try:
            await asyncio.wait([stream])
        finally:
            stream.cancel()
            self._streams.discard(stream)
        return response

    async def _stream(self, response: web.StreamResponse, span: Span) -> None:
        watch = contextlib.aclosing(self._samples.watch())
        with contextlib.suppress(ConnectionError):
            async with watch as samples:
                async for latest in samples:
                    await response.write(self._events(latest, span).encode())

    def _events(self, latest: Movement, span: Span) -> str:
        drawn = charts(self._samples.hour, span, wall_now_ms())
        events = (
            ("figures", msgspec.json.encode(figures(latest).texts()).decode()),
            ("delivery", delivery_words(latest.view)),
            ("charts", self._renderer.part("charts.html", charts=drawn)),
            ("dead", str(latest.view.dead)),
        )
        return "".join(f"event: {name}\n{_data(body)}\n\n" for name, body in events)


def _span(request: web.Request) -> Span:
    return SPANS.get(request.query.get("span", ""), HOUR)


def _data(body: str) -> str:
    return "\n".join(f"data: {line}" for line in body.splitlines() or [""])
