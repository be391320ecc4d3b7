"""The overview of the operators' pages: delivery, figures, charts, dead events by their reasons.

It works without JavaScript. With it the figures are live, by server-sent events that end when the
service stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from weakref import WeakSet

import msgspec
from aiohttp import web

from inngest_outbox.console.operations.sampler import Sampler
from inngest_outbox.console.operations.views import PAUSED, Movement
from inngest_outbox.console.pages.charts import HOUR, SPANS, ChartSource, Span
from inngest_outbox.console.pages.desk import Desk
from inngest_outbox.console.pages.figures import delivery_words, figures
from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.identity.scopes import Scopes
from inngest_outbox.observe.printable import printable
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.runs.figures import load_names
from inngest_outbox.web.openapi.endpoint import Endpoint
from inngest_outbox.web.server.answers import event_source

PATH = "/outbox"
_GROUPS_SHOWN = 10
_DRAW_SECONDS = 20.0


class Overview:
    """The handlers. `close` ends the live streams, so that no stop waits for them.

    `journal` returns the state of the journal, None without one.
    """

    def __init__(
        self,
        desk: Desk,
        watched: Sampler,
        drawn: ChartSource,
        scopes: Scopes,
        journal: Callable[[], object],
    ) -> None:
        self._journal = journal
        self._desk = desk
        self._scopes = scopes
        self._watched = watched
        self._drawn = drawn
        self._streams: WeakSet[asyncio.Task[None]] = WeakSet()
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
        actor = await self._desk.actor(request)
        latest = await self._watched.sample()
        span, now_ms = _span(request), wall_now_ms()
        drawn, rows = await self._drawn.drawn(span)
        known = await load_names(self._scopes)
        return await self._desk.page(
            request,
            "overview.html",
            actor=actor,
            title="Overview",
            here=PATH,
            delivery_words=delivery_words(latest.view),
            paused=latest.view.delivery.state == PAUSED,
            figures=figures(latest),
            span=span.name,
            charts=drawn,
            chart_rows=rows,
            without_runs=known.missing_runs(now_ms),
            now_ms=now_ms,
            journal=self._journal(),
            **await self._desk.dead_groups(_GROUPS_SHOWN),
        )

    async def live(self, request: web.Request) -> web.StreamResponse:
        """The figures as they change, as server-sent events."""
        await self._desk.actor(request)
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
            if not stream.done():  # a cancel would hide its fault from the log
                stream.cancel()
        return response

    async def _stream(self, response: web.StreamResponse, span: Span) -> None:
        watch = contextlib.aclosing(self._watched.watch())
        with contextlib.suppress(ConnectionError, OutboxUnavailableError):
            async with watch as samples:
                drawn_at, dead = -_DRAW_SECONDS, -1
                async for latest in samples:
                    events = _figure_events(latest)
                    if time.monotonic() - drawn_at >= _DRAW_SECONDS:
                        drawn_at = time.monotonic()
                        drawn, _ = await self._drawn.drawn(span)
                        events += _event("charts", self._desk.part("charts.html", charts=drawn))
                    if latest.view.dead != dead:
                        dead = latest.view.dead
                        told = await self._desk.dead_groups(_GROUPS_SHOWN)
                        events += _event("dead", self._desk.part("dead_groups.html", **told))
                    await response.write(events.encode())


def _figure_events(latest: Movement) -> str:
    texts = msgspec.json.encode(figures(latest).texts()).decode()
    return (
        _event("figures", texts)
        + _event("state", latest.view.delivery.state)
        + _event("delivery", printable(delivery_words(latest.view)))
    )


def _event(name: str, body: str) -> str:
    data = "".join(f"data: {line}\n" for line in body.splitlines())
    return f"event: {name}\n{data}\n"


def _span(request: web.Request) -> Span:
    return SPANS.get(request.query.get("span", ""), HOUR)


class OperatorPage:
    """All pages: the overview, and the others by their `routes`."""

    def __init__(self, overview: Overview, routes: Sequence[web.RouteDef]) -> None:
        self._overview = overview
        self._routes = routes

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [*self._overview.routes(), *self._routes]

    def endpoints(self) -> Sequence[Endpoint]:
        """Nothing: the API's description leaves out pages for people."""
        return ()

    async def close(self, app: web.Application) -> None:
        """End the live streams."""
        del app
        await self._overview.close()
