"""The HTTP server of the application: its limits, its connections, the admission of requests."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import uuid_utils
from aiohttp import hdrs, web

from inngest_outbox.errors import OutboxUnavailableError, RateLimitedError
from inngest_outbox.observe.recorder import Recorder
from inngest_outbox.web.server.admission import Admission, AdmissionPolicy
from inngest_outbox.web.server.body_budget import return_memory
from inngest_outbox.web.server.connection import Connection, ConnectionRules, last_answer, peer_of
from inngest_outbox.web.server.errors import error_response, refusal_of
from inngest_outbox.web.server.proxies import Proxies, proxies_key
from inngest_outbox.web.server.shares import ConnectionShares

# Costs almost nothing, and says whether the event loop turns.
_UNQUEUED = "/healthz"
# From the end of a connection that has sent much, until its memory goes back to the system.
_RETURN_SECONDS = 5.0
LINGER_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ServerPolicy:
    """The limits of the server's clients.

    A connection without a request is closed after `keep_alive_seconds`, longer than proxies keep
    theirs. A head must be complete within `head_seconds`. A client that reads nothing of its answer
    for `unread_seconds` is dropped. A stop waits `shutdown_seconds` for requests in progress. Above
    `max_connections` a new connection takes the place of an idle one, or is closed at once, so that
    the store and delivery keep their file handles. `admission` bounds how many requests run at
    once.
    """

    head_seconds: float = 10.0
    unread_seconds: float = 60.0
    keep_alive_seconds: float = 75.0
    shutdown_seconds: float = 15.0
    max_connections: int = 65_536
    admission: AdmissionPolicy = field(default_factory=AdmissionPolicy)


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

    async def let_go(self, linger_seconds: float = LINGER_SECONDS) -> None:
        """Accept nothing more; clients may use each connection once more: others take the next.

        Returns when the connections are closed, or after `linger_seconds`.
        """
        for site in self.sites:
            await site.stop()
        if isinstance(self.server, _Server):
            await self.server.linger(linger_seconds)

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(
            made.request_handler,
            made.request_factory,
            recorder=self._recorder,
            policy=self._policy,
            is_proxy=self.app.get(proxies_key, Proxies()).is_trusted,
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
        is_proxy: Callable[[str], bool],
        **options: Any,
    ) -> None:
        self._recorder = recorder
        self._handler = handler
        self._admission = Admission(policy.admission)
        self._is_lingering = False
        self._shares = ConnectionShares(policy.max_connections, is_proxy)
        self._rules = ConnectionRules(
            recorder=recorder,
            head_seconds=policy.head_seconds,
            unread_seconds=policy.unread_seconds,
            admit=self._shares.admit,
            parses_now=self._admission.parses_now,
        )
        self._lost = asyncio.Event()
        self._is_returning = False
        super().__init__(self._handle, request_factory=request_factory, **options)

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
        self._shares.add(handler, peer_of(transport))

    def connection_lost(self, handler: Any, exc: BaseException | None = None) -> None:
        """Forget a connection."""
        super().connection_lost(handler, exc)
        self._shares.remove(handler)
        self._lost.set()
        if handler.has_sent_much and not self._is_returning:
            self._is_returning = True
            self._loop.call_later(_RETURN_SECONDS, self._return_memory)

    def _return_memory(self) -> None:
        self._is_returning = False
        gc.collect(1)  # a connection's last requests are in cycles; a whole collection takes long
        with contextlib.suppress(RuntimeError):  # the process stops, and starts no thread
            self._loop.run_in_executor(None, return_memory)

    def __call__(self) -> Connection:
        return Connection(self, loop=self._loop, rules=self._rules, **self._kwargs)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        admission = self._admission
        connection: Any = request.protocol  # as `__call__` makes it
        connection.arrived_at = time.monotonic()
        client: str | None = None
        has_place = False
        try:
            client = self._shares.begin(request)
            if request.raw_path != _UNQUEUED and not admission.starts_now():
                await admission.later_turn(is_pipelined=connection.is_pipelining)
            # A slow client, whose body has not arrived, takes no place of a post.
            has_place = (
                request.method == hdrs.METH_POST
                and request.content.is_eof()
                and (admission.takes_post() or await admission.post_place())
            )
            response: web.StreamResponse = await self._handler(request)
        except (web.HTTPException, RateLimitedError, OutboxUnavailableError) as error:
            response = self._refuse(error)
        except UnicodeEncodeError:  # aiohttp's refusal quotes an Expect header, whatever its bytes
            response = self._refuse(web.HTTPExpectationFailed())
        finally:
            connection.end_request()
            self._shares.end(request, client)
            if has_place:
                admission.end_post()
        if connection.is_last_answer(lingers=self._is_lingering):
            response.force_close()
        return response

    def _refuse(
        self, error: web.HTTPException | RateLimitedError | OutboxUnavailableError
    ) -> web.Response:
        """The answer to a request that no middleware saw, an unknown Expect header among them."""
        refusal = refusal_of(error) if isinstance(error, web.HTTPException) else error
        self._recorder.count("refused", code=refusal.code)
        return last_answer(error_response(refusal), str(uuid_utils.uuid7()))
