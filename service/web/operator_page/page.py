"""The operators' page at /outbox: figures, the last hour, the dead events, replay and discard.

For operators only. Reading and repairing work without JavaScript; with it the figures are live, by
server-sent events that end when the service stops. Each change is confirmed first and passes the
cross-site check.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Protocol
from urllib.parse import parse_qsl

from aiohttp import hdrs, web

from service.errors import NotFoundError
from service.identity.operators import Operators
from service.identity.user import User
from service.operations.rates import Movement
from service.operations.sampler import Point
from service.outbox.clock import wall_now_ms
from service.outbox.model import Filter, Row, State
from service.outbox.ports import Inspector, Repairs
from service.web.body import read_body
from service.web.openapi.endpoint import Endpoint
from service.web.operator_page.view import OperatorView, delivery_words, figures

_DEAD_SHOWN = 50
_MAX_FORM_BYTES = 64 * 1024
_DONE = {
    "replayed": "Event replayed: it goes out again under its id.",
    "discarded": "Event discarded.",
    "unchanged": "Nothing was changed: the event is no longer dead.",
}


class Looks(Protocol):
    """What was seen of the outbox lately."""

    @property
    def latest(self) -> Movement | None:
        """The latest look, None before the first."""
        ...

    @property
    def hour(self) -> tuple[Point, ...]:
        """The looks of the last hour, oldest first."""
        ...

    async def sample(self) -> None:
        """Look now."""
        ...

    def watch(self) -> AsyncGenerator[Movement, None]:
        """The latest look, then each new one."""
        ...


class OperatorPage:
    """The handlers under /outbox. `close` ends the live streams, so that no stop waits for them."""

    def __init__(
        self,
        inspector: Inspector,
        repairs: Repairs,
        looks: Looks,
        *,
        user_of: Callable[[web.Request], Awaitable[User]],
        operators: Operators,
    ) -> None:
        self._inspector = inspector
        self._repairs = repairs
        self._looks = looks
        self._user_of = user_of
        self._operators = operators
        self._view = OperatorView()
        self._streams: set[asyncio.Task[None]] = set()

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [
            web.get("/outbox", self.show),
            web.get("/outbox/live", self.live, allow_head=False),
            web.post("/outbox/replay", self.replay),
            web.post("/outbox/discard", self.discard),
        ]

    def endpoints(self) -> Sequence[Endpoint]:
        """A page for people is no part of the API's description."""
        return ()

    async def close(self, app: web.Application) -> None:
        """End the live streams."""
        del app
        for stream in self._streams:
            stream.cancel()

    async def show(self, request: web.Request) -> web.Response:
        """The page."""
        await self._operator(request)
        await self._looks.sample()
        dead = await self._inspector.rows(Filter(state=State.DEAD, limit=_DEAD_SHOWN))
        text = self._view.page(
            self._looks.latest,
            self._looks.hour,
            dead,
            now_ms=wall_now_ms(),
            notice=_DONE.get(request.query.get("done", ""), ""),
        )
        return self._html(text)

    async def live(self, request: web.Request) -> web.StreamResponse:
        """The figures as they change, as server-sent events."""
        await self._operator(request)
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "text/event-stream"})
        await response.prepare(request)
        stream = asyncio.create_task(self._stream(response), name="operator-page-live")
        self._streams.add(stream)
        try:
            await asyncio.wait([stream])
        finally:
            stream.cancel()
            self._streams.discard(stream)
        return response

    async def replay(self, request: web.Request) -> web.Response:
        """Ask, then send a dead event again."""
        return await self._change(request, "replay", self._repairs.replay)

    async def discard(self, request: web.Request) -> web.Response:
        """Ask, then remove a dead event."""
        return await self._change(request, "discard", self._repairs.discard)

    async def _change(
        self, request: web.Request, action: str, change: Callable[..., Awaitable[list[str]]]
    ) -> web.Response:
        user = await self._operator(request)
        body = await read_body(request, max_bytes=_MAX_FORM_BYTES)
        form = dict(parse_qsl(body.decode(errors="replace")))
        event_id = form.get("id", "")
        wanted = Filter(ids=(event_id,), state=State.DEAD, limit=1)
        rows: list[Row] = await self._inspector.rows(wanted)
        if not rows:
            raise NotFoundError("There is no such dead event.")
        if form.get("confirmed") != "yes":
            return self._html(self._view.confirmation(action, rows[0], now_ms=wall_now_ms()))
        done = await change(wanted, actor=user.email or user.id)
        place = f"/outbox?done={f'{action}ed' if done else 'unchanged'}"
        return web.Response(status=303, headers={hdrs.LOCATION: place})

    async def _operator(self, request: web.Request) -> User:
        user = await self._user_of(request)
        self._operators.require(user)
        return user

    async def _stream(self, response: web.StreamResponse) -> None:
        watch = contextlib.aclosing(self._looks.watch())
        with contextlib.suppress(ConnectionError):
            async with watch as looks:
                async for latest in looks:
                    await response.write(self._events(latest).encode())

    def _events(self, latest: Movement) -> str:
        events = (
            ("figures", figures(latest, self._looks.hour, wall_now_ms())),
            ("delivery", delivery_words(latest.view)),
            ("dead", str(latest.view.dead)),
        )
        return "".join(f"event: {name}\n{_data(body)}\n\n" for name, body in events)

    def _html(self, text: str) -> web.Response:
        # A page without a referrer would post its forms with `Origin: null`, as another site does.
        headers = {
            "Content-Security-Policy": self._view.policy,
            "Referrer-Policy": "same-origin",
        }
        return web.Response(text=text, content_type="text/html", headers=headers)


def _data(body: str) -> str:
    return "\n".join(f"data: {line}" for line in body.splitlines() or [""])
