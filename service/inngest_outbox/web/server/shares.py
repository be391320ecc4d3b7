"""The shares of a server's connections, so that no peer and no flood takes all of them.

The invariant: while a connection has no request, a new one can take its place; and some connections
are kept for health checks and operators.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Protocol

from aiohttp import hdrs, web

from inngest_outbox.errors import OutboxUnavailableError, RateLimitedError

_PEERS = 2
_CLIENTS = 4
_KEPT = 8
_KEPT_PATHS = ("/healthz", "/readyz", "/metrics", "/outbox")


class Closable(Protocol):
    """A connection."""

    def force_close(self) -> None:
        """Close it at once."""
        ...


class ConnectionShares:
    """The shares of `limit` connections. `is_proxy` knows trusted proxies.

    A peer has half of them at most, unless it is a proxy. A proxy's client has a quarter of them at
    work at most. Above seven eighths at work only health checks and operators are served.
    """

    def __init__(self, limit: int, is_proxy: Callable[[str], bool]) -> None:
        self._limit = limit
        self._is_proxy = is_proxy
        self._peers: dict[Closable, str] = {}
        self._counts: Counter[str] = Counter()
        self._idle: dict[Closable, None] = {}  # the longest idle first
        self._clients: Counter[str] = Counter()

    def admit(self, peer: str) -> bool:
        """True where one more connection of `peer` may begin. It may take an idle one's place."""
        has_share = self._counts[peer] < self._limit // _PEERS
        if not has_share and not self._is_proxy(peer):
            return False
        if len(self._peers) < self._limit:
            return True
        if not self._idle:
            return False
        longest = next(iter(self._idle))
        self.remove(longest)
        longest.force_close()
        return True

    def add(self, connection: Closable, peer: str) -> None:
        """A connection begins."""
        self._peers[connection] = peer
        self._counts[peer] += 1
        self._idle[connection] = None

    def remove(self, connection: Closable) -> None:
        """A connection has ended. May be repeated."""
        self._idle.pop(connection, None)
        peer = self._peers.pop(connection, None)
        if peer is not None:
            self._counts[peer] -= 1
            if not self._counts[peer]:
                del self._counts[peer]

    def begin(self, request: web.BaseRequest) -> str | None:
        """A request begins; returns the client to give to `end`, None without a proxy.

        Raises RateLimitedError or OutboxUnavailableError for one too many.
        """
        self._idle.pop(request.protocol, None)
        at_work = len(self._peers) - len(self._idle)
        is_full = at_work > self._limit - self._limit // _KEPT
        if is_full and not request.raw_path.startswith(_KEPT_PATHS):
            raise OutboxUnavailableError("Too many requests are under way. Try again shortly.")
        if hdrs.X_FORWARDED_FOR not in request.headers:
            return None
        client = self._client(request)
        if client and self._clients[client] >= self._limit // _CLIENTS:
            raise RateLimitedError(retry_after_seconds=1)
        if client:
            self._clients[client] += 1
        return client

    def end(self, request: web.BaseRequest, client: str | None) -> None:
        """A request has ended."""
        if request.protocol in self._peers:
            self._idle[request.protocol] = None
        if client:
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]

    def _client(self, request: web.BaseRequest) -> str | None:
        """The address that a trusted proxy added."""
        added = request.headers.getall(hdrs.X_FORWARDED_FOR)[-1].rpartition(",")[2].strip()
        return added if self._is_proxy(request.remote or "") else None
