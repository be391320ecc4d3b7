"""The purge of old delivered rows, and of their payloads before them.

It runs in small steps beside the requests. The invariant: only delivered rows lose anything, and
only after their time; dead rows stay until an operator decides.
"""

from __future__ import annotations

import asyncio

import structlog

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.ports import Repairs

_LONGEST_PAUSE_SECONDS = 600.0
_RETRY_SECONDS = 5.0

log = structlog.get_logger(__name__)


async def run_retention(
    repairs: Repairs, retention_seconds: float, payload_seconds: float | None = None
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
