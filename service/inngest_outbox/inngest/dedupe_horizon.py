"""Rows that may have been sent longer ago than Inngest remembers ids.

Inngest ignores a repeated id for 24 h. A row that may have been sent longer ago is sent again only
when Inngest shows that it never had the event. Without an answer it is not sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from inngest_outbox.errors import InngestApiError
from inngest_outbox.inngest.delivery_request import parts_of
from inngest_outbox.inngest.held import MAX_PAGE, EventPages, held_of
from inngest_outbox.outbox.event_ids import USED_MS
from inngest_outbox.outbox.inngest_id import InngestIds
from inngest_outbox.outbox.model import Batch, Entry, Retry, Settlement

_KNOWN_MS = USED_MS - 300_000
_ASK_AGAIN_SECONDS = 30.0
_ASK_SECONDS = 5.0


class HorizonCheck(msgspec.Struct, frozen=True, gc=False):
    """The rows to send now (None: none), and the settlement of the other rows (None: none)."""

    send: Batch | None
    settlement: Settlement | None


class DedupeHorizon:
    """Asks Inngest about old rows of a batch."""

    def __init__(self, pages: EventPages, ids: InngestIds) -> None:
        self._pages = pages
        self._ids = ids

    async def check(self, batch: Batch, now_ms: int) -> HorizonCheck:
        """Remove from `batch` the rows that Inngest holds or can't be asked about now.

        Where it answers slowly, the last of many old rows wait too: the others have to be sent
        before the lease ends.
        """
        old = [entry for entry in batch.entries if is_old(entry, now_ms)]
        if not old:
            return HorizonCheck(batch, None)
        known: list[Entry] = []
        later: list[Retry] = []
        until = _now() + _ASK_SECONDS
        for asked in range(0, len(old), MAX_PAGE):
            try:
                known += await held_of(self._pages, self._ids, old[asked : asked + MAX_PAGE])
            except InngestApiError as error:
                later = _later(old[asked:], str(error))
                break
            if _now() > until:
                later = _later(old[asked + MAX_PAGE :], "Inngest answers slowly")
                break
        settled = {entry.seq for entry in known}.union(retry.seq for retry in later)
        delivered = [entry.seq for entry in known]
        return _without(batch, settled, Settlement(batch.claim, delivered=delivered, retry=later))


def is_old(entry: Entry, now_ms: int) -> bool:
    """True when Inngest may have forgotten the id of an event that was sent before.

    Of an event from the journal it is not known when it was sent.
    """
    first_ms = entry.first_sent_at_ms
    return first_ms is not None and (entry.meta.restored or now_ms - first_ms > _KNOWN_MS)


def _later(entries: Sequence[Entry], why: str) -> list[Retry]:
    note = f"not sent: it may have left 24 h ago, and {why}"
    return [
        Retry(entry.seq, _ASK_AGAIN_SECONDS, entry.attempts, entry.isolated, note)
        for entry in entries
    ]


def _without(batch: Batch, settled: set[int], settlement: Settlement) -> HorizonCheck:
    if not settled:
        return HorizonCheck(batch, None)
    left = [at for at, entry in enumerate(batch.entries) if entry.seq not in settled]
    send = parts_of(batch, [left])[0] if left else None
    return HorizonCheck(send, settlement)


def _now() -> float:
    return asyncio.get_running_loop().time()
