"""The HTTP server of the application: its limits, and how many posts run at once.

Of many simultaneous posts some run and the others wait in order. A waiting post needs no more
memory than aiohttp's. It waits for a moment only, because the running ones may wait for a neighbour
that hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, cast

import uuid_utils
from aiohttp import hdrs, web

from service.observe.recorder import Recorder
from service.web.server.connection import Connection
from service.web.server.errors import error_response, refusal_of
from service.web.server.keep_alive import KeepAlive
from service.web.server.middleware import REQUEST_ID, arrived_at_key
from service.web.server.request_parser import RequestLimits
from service.web.server.security_headers import SERVER
from service.web.server.slots import Slots
from service.web.server.turns import TurnPolicy, Turns

MAX_CONCURRENT_POSTS = 256
# Costs almost nothing, and says whether the event loop turns.
_UNQUEUED = "/healthz"


@dataclass(frozen=True, slots=True)
class ServerPolicy:
    """How the server treats its clients.

    A connection without a request is closed after `keep_alive_seconds`, longer than proxies keep
    theirs. A head must be complete within `head_seconds`. A client that reads nothing of its answer
    for `unread_seconds` is dropped. A server that lets go lets each connection be used once more
    for `linger_seconds`. A stop waits `shutdown_seconds` for requests in progress. A post waits
    `post_wait_seconds` for one of `concurrent_posts` slots, then runs without one. Above
    `max_connections` a new connection is closed at once, so that the store and delivery keep their
    file handles; None is no limit. `turns` says how many requests start at once.
    """

    limits: RequestLimits = field(default_factory=RequestLimits)
    head_seconds: float = 10.0
    unread_seconds: float = 60.0
    keep_alive_seconds: float = 75.0
    shutdown_seconds: float = 15.0
    linger_seconds: float = 1.0
    concurrent_posts: int = MAX_CONCURRENT_POSTS
    post_wait_seconds: float = 1.0
    max_connections: int | None = None
    turns: TurnPolicy = field(default_factory=TurnPolicy)


class HttpServer(web.AppRunner):
    """Runs an application under a policy."""

    def __init__(
        self, app: web.Application, recorder: Recorder, policy: ServerPolicy | None = None
    ) -> None:
        self._policy = policy or ServerPolicy()
        self._recorder = recorder
        super().__init__(
            app,
            access_log=None,
            keepalive_timeout=self._policy.keep_alive_seconds,
            shutdown_timeout=self._policy.shutdown_seconds,
        )

    async def let_go(self) -> None:
        """Accept nothing more; clients may use each connection once more: others take the next.

        Returns when the connections are closed, or after `linger_seconds`.
        """
        for site in list(self.sites):
            await site.stop()
        if isinstance(self.server, _Server):
            await self.server.linger(self._policy.linger_seconds)

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(
            made.request_handler,
            made.request_factory,
            recorder=self._recorder,
            policy=self._policy,
            **self._kwargs,
        )


class _Server(web.Server):
    """Makes a protocol for each connection."""

    def __init__(
        self,
        handler: Any,
        request_factory: Any,
        *,
        recorder: Recorder,
        policy: ServerPolicy,
        **options: Any,
    ) -> None:
        self._recorder = recorder
        self._policy = policy
        self._handler = handler
        self._slots = Slots(policy.concurrent_posts, policy.post_wait_seconds)
        self._turns = Turns(policy.turns)
        self._is_lingering = False
        self._ask_full = lambda: self.is_full  # one for all connections
        self._lost = asyncio.Event()
        super().__init__(self._handle, request_factory=request_factory, **options)
        connections = cast("Collection[Connection]", self._connections)  # as `__call__` makes them
        self._keep_alive = KeepAlive(self._loop, connections, policy.keep_alive_seconds)

    @property
    def is_full(self) -> bool:
        """Whether there are as many connections as the policy allows."""
        limit = self._policy.max_connections
        return limit is not None and len(self._connections) >= limit

    async def linger(self, seconds: float) -> None:
        """Close each connection after its next answer; wait until all are closed, or so long."""
        self._is_lingering = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._connections:
                    await self._lost.wait()
                    self._lost.clear()

    def connection_made(self, handler: Any, transport: asyncio.Transport) -> None:
        """Know a connection from now on."""
        super().connection_made(handler, transport)
        self._keep_alive.begin()

    def connection_lost(self, handler: Any, exc: BaseException | None = None) -> None:
        """Forget a connection."""
        super().connection_lost(handler, exc)
        self._lost.set()

    def __call__(self) -> Connection:
        return Connection(
            self,
            loop=self._loop,
            recorder=self._recorder,
            limits=self._policy.limits,
            head_seconds=self._policy.head_seconds,
            unread_seconds=self._policy.unread_seconds,
            is_full=self._ask_full,
            **self._kwargs,
        )

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        request[arrived_at_key] = time.perf_counter()
        if request.raw_path != _UNQUEUED:
            await self._turns.start(is_pipelined=_is_pipelined(request))
        has_slot = _is_whole_post(request) and await self._slots.take()
        try:
            return self._last_if_lingering(await self._handler(request))
        except web.HTTPException as error:
            # Raised outside of every middleware, for an unknown Expect header.
            refusal = refusal_of(error)
            self._recorder.count("refused", code=refusal.code)
            response = error_response(refusal)
            response.headers[REQUEST_ID] = str(uuid_utils.uuid7())
            response.headers[hdrs.SERVER] = SERVER
            return response
        finally:
            if has_slot:
                self._slots.give_back()

    def _last_if_lingering(self, response: web.StreamResponse) -> web.StreamResponse:
        if self._is_lingering:
            response.force_close()
        return response


def _is_pipelined(request: web.BaseRequest) -> bool:
    connection = request.protocol
    return isinstance(connection, Connection) and connection.is_pipelining


def _is_whole_post(request: web.BaseRequest) -> bool:
    """Whether the whole body has arrived. A slow client takes no slot."""
    return request.method == hdrs.METH_POST and request.content.is_eof()
