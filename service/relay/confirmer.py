"""The confirmer: asks whether Inngest holds the events that it answered, and settles the rows.

It runs beside the sends and shares only the store and the count of unconfirmed events with them.
The invariant: a row becomes `delivered` only when Inngest showed its event, and `pending` only for
a reason that `confirmation` gives.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Sequence

import structlog

from service.errors import InngestApiError, OutboxUnavailableError
from service.inngest.held import EventPages, find_held
from service.outbox.inngest_id import InngestIds
from service.outbox.ports import Confirmations
from service.outbox.sent_entry import SentEntry
from service.relay.confirmation import (
    NOTES,
    ConfirmationPolicy,
    ResendReason,
    StoreProgress,
    poll_seconds,
    resend_reason,
)
from service.relay.report import ConfirmationReport
from service.relay.unconfirmed import Unconfirmed

_QUIET_CHUNKS = 2

log = structlog.get_logger(__name__)


class Confirmer:
    """Confirms the sent rows of `confirmations` until it is cancelled. Times are the loop's."""

    def __init__(
        self,
        confirmations: Confirmations,
        pages: EventPages,
        ids: InngestIds,
        unconfirmed: Unconfirmed,
        report: ConfirmationReport,
        *,
        policy: ConfirmationPolicy | None = None,
    ) -> None:
        self._confirmations = confirmations
        self._pages = pages
        self._ids = ids
        self._unconfirmed = unconfirmed
        self._report = report
        self._policy = policy or ConfirmationPolicy()
        self._clock = asyncio.get_running_loop().time
        now = self._clock()
        self._progress = StoreProgress(held_at=now, back_at=now)
        self._swept_at = float("-inf")
        self._asks = False
        self._sent = asyncio.Event()
        unconfirmed.on_sent = self._sent.set

    def reconnected(self) -> None:
        """Note that the connection to Inngest had to be made again: it may have been restarted."""
        self._progress = self._progress.with_new_connection(self._clock())

    async def run(self) -> None:
        """Ask Inngest while rows are sent; wait while there are none. Cancelling loses nothing."""
        pause = self._policy.min_poll_seconds
        while True:
            found = await self._look()
            pause = poll_seconds(pause, self._policy, found=found)
            if not self._unconfirmed.count:
                await self._wait_for_sent()
                pause = self._policy.min_poll_seconds
            await asyncio.sleep(pause)

    async def sweep(self) -> int:
        """Ask for the sent rows, oldest first, and settle those that are known; how many are held.

        It ends early at events that Inngest has not stored yet, except once in `sweep_seconds`, and
        when another process has taken the turn to ask meanwhile.
        Raises InngestApiError, OutboxUnavailableError.
        """
        whole = self._clock() - self._swept_at >= self._policy.sweep_seconds
        found, quiet, after_seq = 0, 0, 0
        while entries := await self._confirmations.sent(self._policy.chunk_rows, after_seq):
            held = await self._settle(entries)
            found += held
            quiet = 0 if held else quiet + 1
            after_seq = entries[-1].seq
            if (quiet == _QUIET_CHUNKS and not whole) or not await self._may_ask():
                break
        else:
            self._swept_at = self._clock()
        self._unconfirmed.recount(await self._confirmations.count_sent())
        return found

    async def _look(self) -> bool:
        """Count, and sweep when it is this process's turn; whether rows were found to be held."""
        try:
            count = await self._confirmations.count_sent()
            fewer = count < self._unconfirmed.count
            self._unconfirmed.recount(count)
            if count and await self._may_ask():
                return await self._sweep_reported()
        except OutboxUnavailableError as error:
            log.warning("confirm_failed", reason=str(error))
            return False
        if count:
            self._report.others_ask()
        return fewer

    async def _may_ask(self) -> bool:
        """Whether it is this process's turn. It begins with no knowledge of Inngest's store."""
        may_ask = await self._confirmations.may_ask()
        if not self._asks:
            now = self._clock()
            self._progress = StoreProgress(held_at=now, back_at=now)
        self._asks = may_ask
        return may_ask

    async def _sweep_reported(self) -> bool:
        try:
            found = await self.sweep()
        except InngestApiError as error:
            self._progress = self._progress.with_silence(self._clock(), away=not error.reached)
            self._report.failed(str(error))
            await self._confirmations.stop_asking()
            return False
        self._report.swept(found, self._unconfirmed.count)
        return bool(found)

    async def _settle(self, entries: Sequence[SentEntry]) -> int:
        read_at = self._clock()  # the entries' ages count from here
        ulids = {
            self._ids.number(entry.seq, entry.accepted_at_ms, entry.meta): entry
            for entry in entries
        }
        wanted = {ulid: entry.as_sent for ulid, entry in ulids.items()}
        shown = await find_held(self._pages, wanted)
        held = [entry for ulid, entry in ulids.items() if ulid in shown]
        self._progress = self._progress.with_answer(self._clock()).with_held(held, read_at)
        if held:
            await self._confirmations.confirm([entry.seq for entry in held])
            self._report.confirmed(held)
        await self._resend([entry for ulid, entry in ulids.items() if ulid not in shown], read_at)
        return len(held)

    async def _resend(self, missing: Sequence[SentEntry], read_at: float) -> None:
        lost: defaultdict[ResendReason, list[SentEntry]] = defaultdict(list)
        for entry in missing:
            reason = resend_reason(entry, self._progress, self._policy, read_at)
            if reason is not None:
                lost[reason].append(entry)
        for reason, entries in lost.items():
            await self._confirmations.resend([entry.seq for entry in entries], NOTES[reason])
            self._report.resent(reason, entries)

    async def _wait_for_sent(self) -> None:
        """Wait until this process sends a row, or until it is time to look for others' rows.

        A row that was sent during the last sweep ends the wait at once.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._policy.idle_seconds):
                await self._sent.wait()
        self._sent.clear()
