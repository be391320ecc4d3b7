"""`serve --fake-inngest`: a fake Inngest for a developer who runs no dev server.

The invariant: the fake never takes events that were meant for another Inngest. It has a port of its
own, starts only in development, only where no variable of Inngest's is set and no dev server
answers, and the settings that it gives name it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlsplit

from inngest_outbox.config.settings import Settings
from inngest_outbox.dev.fake_inngest.server import FakeInngest
from inngest_outbox.errors import ConfigurationError
from inngest_outbox.inngest.address import inngest_address

FAKE_INNGEST_PORT = 8299
_ANY_PORT = 0
_ONLY_IN_DEVELOPMENT = "--fake-inngest: a fake Inngest can't be used in production"


@contextlib.asynccontextmanager
async def open_inngest(
    settings: Settings, *, fake: bool, say: Callable[[str], None]
) -> AsyncIterator[Settings]:
    """The settings to run with; with `fake` a fake Inngest runs meanwhile where it may.

    Raises ConfigurationError in production.
    """
    if not fake:
        yield settings
        return
    if settings.production:
        raise ConfigurationError([_ONLY_IN_DEVELOPMENT])
    if named := _inngest_variables():
        say(f"No fake Inngest: {', '.join(named)} is set.")
        yield settings
        return
    origin = inngest_address(settings).event_api_origin
    if await _answers(origin):
        say(f"No fake Inngest: a dev server answers at {origin}.")
        yield settings
        return
    async with _fake_inngest() as url:
        say(f"Events go to a fake Inngest: see them at {url}/fake-inngest/events")
        yield settings.with_fake_inngest(url)


def _inngest_variables() -> list[str]:
    """The variables of Inngest's that are set, those too that only its SDK reads."""
    given = os.environ.items()
    return sorted(name for name, value in given if name.startswith("INNGEST_") and value.strip())


@contextlib.asynccontextmanager
async def _fake_inngest() -> AsyncIterator[str]:
    """A fake Inngest at its usual port, or at a free one; its address."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            fake = await stack.enter_async_context(FakeInngest(port=FAKE_INNGEST_PORT))
        except OSError:
            fake = await stack.enter_async_context(FakeInngest(port=_ANY_PORT))
        yield fake.url


async def _answers(origin: str) -> bool:
    parts = urlsplit(origin)
    try:
        async with asyncio.timeout(1):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
