"""The purge of old delivered rows, and of their payloads before them.

It runs in small steps beside the requests. The invariant: only delivered rows lose anything, and
only after their time; dead rows stay until an operator decides.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple, Protocol

import structlog

from service.errors import OutboxBusyError, OutboxUnavailableError

PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 600.0
_RETRY_SECONDS = 5.0

log = structlog.get_logger(__name__)


class PurgedPage(NamedTuple):
    """One step of a purge: where the next begins, None at the end, and how many rows it removed."""

    next_after: int | None
    removed: int


class Purger(Protocol):
    """The store's part of a purge."""

    async def purge_page(self, after_seq: int, older_than_seconds: float) -> PurgedPage:
        """Remove old delivered rows of one page after `after_seq`, atomically."""
        ...

    async def purge_ended(self, removed: int, actor: str | None) -> None:
        """Note the purge in the audit unless `actor` is None, and give the space back."""
        ...


class Purges(Protocol):
    """Repairs that can purge."""

    async def purge(self, *, older_than_seconds: float, actor: str | None) -> int:
        """Remove delivered rows settled longer ago; returns how many."""
        ...

    async def purge_payloads(self, *, older_than_seconds: float) -> int:
        """Remove the payloads of delivered rows settled longer ago; returns how many."""
        ...


async def purge(purger: Purger, *, older_than_seconds: float, actor: str | None) -> int:
    """Remove delivered rows settled longer ago, in pages with a pause; returns how many.

    Raises what `purger` raises; the pages before stay removed. OutboxBusyError says that the purge
    makes way for another process; what was removed is in the audit then, too.
    """
    gone = 0
    after: int | None = 0
    try:
        while after is not None:
            after, removed = await purger.purge_page(after, older_than_seconds)
            gone += removed
            await asyncio.sleep(PAUSE_SECONDS if removed else 0)
    except OutboxBusyError:
        if gone:
            await purger.purge_ended(gone, actor)
        raise
    if gone:
        await purger.purge_ended(gone, actor)
    return gone


async def run_retention(
    repairs: Purges, retention_seconds: float, payload_seconds: float | None = None
) -> None:
    """Purge rows that were delivered longer ago, now and then, until cancelled.

    Their payloads go after `payload_seconds`, None: with the rows.
    """
    pause = min(_LONGEST_PAUSE_SECONDS, max(1.0, retention_seconds / 10))
    while True:
        try:
            gone = await repairs.purge(older_than_seconds=retention_seconds, actor=None)
            if gone:
                log.info("purged", rows=gone)
            if payload_seconds is not None and payload_seconds < retention_seconds:
                gone = await repairs.purge_payloads(older_than_seconds=payload_seconds)
                if gone:
                    log.info("payloads_purged", rows=gone)
        except OutboxUnavailableError as error:
            log.warning("purge_failed", reason=str(error))
            await asyncio.sleep(min(pause, _RETRY_SECONDS))
        else:
            await asyncio.sleep(pause)
