"""HTTP clients for the service's neighbours."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import aiohttp


def make_http(*, limit: int, on_connect: Callable[[], None] | None = None) -> aiohttp.ClientSession:
    """A client of its own; proxies named in the environment are not for these neighbours.

    `on_connect` is called for each connection that it makes.
    """
    tracing = aiohttp.TraceConfig()
    if on_connect is not None:
        tracing.on_connection_create_end.append(_calling(on_connect))
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=limit),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        trace_configs=[tracing] if on_connect else None,
    )


def _calling(on_connect: Callable[[], None]) -> Callable[..., Awaitable[None]]:
    async def connected(*_: object) -> None:
        on_connect()

    return connected
