"""An application at a Unix socket that only this user can reach, for commands."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

_SHUTDOWN_SECONDS = 2.0


@contextlib.asynccontextmanager
async def serve_at(path: str, app: web.Application) -> AsyncIterator[None]:
    """Serve `app` at `path` in this context. Raises OSError."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        await web.UnixSite(runner, path).start()
        await asyncio.to_thread(Path(path).chmod, 0o600)
        yield
    finally:
        await runner.cleanup()
