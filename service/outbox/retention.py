"""Old delivered rows go by themselves, and the store's files stay small.

Small steps, off the path of requests. The invariant: only delivered rows go, and only after the
retention; dead rows stay until a person decides.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog

from service.errors import OutboxUnavailableError

TIDY_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 600.0

log = structlog.get_logger(__name__)


class Tidied(Protocol):
    """A store that can be kept small."""

    async def purge(self, *, older_than_seconds: float, actor: str | None) -> int:
        """See Operations.purge."""
        ...

    async def tidy(self) -> None:
        """Look after the store's own files; cheap, and safe to repeat."""
        ...


async def keep_tidy(outbox: Tidied, retention_seconds: float) -> None:
    """Tidy every few seconds and purge now and then, until cancelled."""
    loop = asyncio.get_running_loop()
    pause = min(_LONGEST_PAUSE_SECONDS, max(1.0, retention_seconds / 10))
    purge_at = loop.time()
    while True:
        try:
            await outbox.tidy()
            if loop.time() >= purge_at:
                purge_at = loop.time() + pause
                gone = await outbox.purge(older_than_seconds=retention_seconds, actor=None)
                if gone:
                    log.info("purged", rows=gone)
        except OutboxUnavailableError as error:
            log.warning("tidying_failed", reason=str(error))
        await asyncio.sleep(min(pause, TIDY_SECONDS))
