"""The parts of any process: HTTP clients for its neighbours, and what it watches in itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import aiohttp

from inngest_outbox.console.operations.sampler import keep_lag
from inngest_outbox.observe.file_descriptors import DescriptorShortage
from inngest_outbox.observe.recorder import Recorder
from inngest_outbox.supervisor import Supervisor


def make_http(*, limit: int, on_connect: Callable[[], None] | None = None) -> aiohttp.ClientSession:
    """An HTTP client with its own connections, past any proxy that the environment names.

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


def watch_process(supervisor: Supervisor, recorder: Recorder) -> None:
    """Watch the event loop's lag and the file descriptors. Every process that serves does."""
    supervisor.watch("event-loop-lag", lambda: keep_lag(recorder))
    supervisor.watch("file-descriptors", DescriptorShortage(recorder).watch)


def _calling(on_connect: Callable[[], None]) -> Callable[..., Awaitable[None]]:
    async def connected(*_: object) -> None:
        on_connect()

    return connected
