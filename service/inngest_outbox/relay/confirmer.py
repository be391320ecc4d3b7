"""The confirmer: asks whether Inngest holds the events that it answered, and settles the rows.

It runs beside the sends and shares only the store and the count of unconfirmed events with them.
Several chunks of rows are asked for at a time, and each is settled at once, so a slow answer holds
up no other chunk. The invariant: a row becomes `delivered` only when Inngest showed its event,
and `pending` only for a reason that `confirmation` gives, by what was known when Inngest was asked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import structlog

from inngest_outbox.errors import InngestApiError, OutboxUnavailableError
from inngest_outbox.inngest.held import EventPages, HeldEvent, held_of
from inngest_outbox.outbox.inngest_id import InngestIds
from inngest_outbox.outbox.model import SentEntry
from inngest_outbox.outbox.ports import Confirmations
from inngest_outbox.relay.confirmation import (
    NOTES,
    ConfirmationPolicy,
    ResendReason,
    StoreProgress,
    poll_seconds,
    resend_reason,
)
from inngest_outbox.relay.report import ConfirmationReport
from inngest_outbox.relay.unconfirmed import Unconfirmed

_SHOWN = 3

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Answer:
    """A chunk of rows, all of one environment, and what Inngest said.

    `held` is None where it gave no answer, for the reason `fault`. `progress` is what was known
    when the question began.
    """

    entries: Sequence[SentEntry]
    read_at: float
    progress: StoreProgress
    held: Sequence[SentEntry] | None = None
    fault: InngestApiError | None = None


class _Refusal(NamedTuple):
    """An environment that Inngest refused to tell about, and until when it is left out."""

    until: float
    words: str


class Confirmer:
    """Confirms the sent rows of `confirmations` until it is cancelled. Times are the loop's.

    Questions go over `line`, one at a time, and over `pages` while it is busy. A new connection of
    `line` shows that Inngest may have been restarted: see `reconnected`.
    """

    def __init__(
        self,
        confirmations: Confirmations,
        pages: EventPages,
        ids: InngestIds,
        unconfirmed: Unconfirmed,
        report: ConfirmationReport,
        *,
        line: EventPages | None = None,
        policy: ConfirmationPolicy | None = None,
    ) -> None:
        self._confirmations = confirmations
        self._policy = policy or ConfirmationPolicy()
        self._pages = _Lines(line or pages, pages, self._policy.questions)
        self._ids = ids
        self._unconfirmed = unconfirmed
        self._report = report
        self._clock = asyncio.get_running_loop().time
        now = self._clock()
        self._progress = StoreProgress(held_at=now, back_at=now)
        self._refused: dict[str | None, _Refusal] = {}
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

    async def _look(self) -> bool:
        """Count, and sweep when it is this process's turn; true when rows were found to be held."""
        try:
            count = await self._confirmations.count_sent()
            fewer = count < self._unconfirmed.count
            self._unconfirmed.recount(count)
            if count and await self._may_ask():
                return bool(await self.sweep())
        except OutboxUnavailableError as error:
            log.warning("confirm_failed", reason=str(error))
            return False
        if count:
            self._report.others_ask()
        return fewer

    async def _may_ask(self) -> bool:
        """True on this process's turn, which begins with no knowledge of Inngest's store."""
        may_ask = await self._confirmations.may_ask()
        if not self._asks:
            now = self._clock()
            self._progress = StoreProgress(held_at=now, back_at=now)
        self._asks = may_ask
        return may_ask

    async def sweep(self) -> int:
        """Ask for the sent rows, oldest first, and settle each answer; how many are held.

        It ends early at events that Inngest has not stored yet, except once in `sweep_seconds`;
        when another process has taken the turn to ask meanwhile; and after several questions in a
        row without an answer. Rows of an environment that Inngest refused lately are left out.
        Raises OutboxUnavailableError.
        """
        sweep = _Sweep(whole=self._clock() - self._swept_at >= self._policy.sweep_seconds)
        asked: set[asyncio.Task[_Answer]] = set()
        try:
            after_seq = 0
            while entries := await self._confirmations.sent(self._policy.chunk_rows, after_seq):
                after_seq, read_at = entries[-1].seq, self._clock()
                for chunk in self._chunks(entries, sweep):
                    asked.add(asyncio.create_task(self._ask(chunk, read_at)))
                    while len(asked) >= self._policy.chunks:
                        await self._settle_some(asked, sweep)
                if sweep.ends(self._policy) or not await self._may_ask():
                    break
            else:
                sweep.read_all = True
            while asked:
                await self._settle_some(asked, sweep)
        finally:
            for task in asked:
                task.cancel()
        await self._conclude(sweep)
        return sweep.found

    def _chunks(self, entries: Sequence[SentEntry], sweep: _Sweep) -> Iterator[Sequence[SentEntry]]:
        """The rows of each environment that may be asked about."""
        found: defaultdict[str | None, list[SentEntry]] = defaultdict(list)
        for entry in entries:
            found[entry.meta.environment].append(entry)
        for environment, rows in found.items():
            refusal = self._refused.get(environment)
            if refusal and refusal.until > self._clock():
                sweep.refused[environment] += len(rows)
            else:
                yield rows

    async def _ask(self, entries: Sequence[SentEntry], read_at: float) -> _Answer:
        progress = self._progress
        try:
            held = await held_of(self._pages, self._ids, entries)
        except InngestApiError as error:
            return _Answer(entries, read_at, progress, fault=error)
        return _Answer(entries, read_at, progress, held)

    async def _settle_some(self, asked: set[asyncio.Task[_Answer]], sweep: _Sweep) -> None:
        """Wait for an answer and settle what has been answered."""
        done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        asked -= done
        held: list[SentEntry] = []
        lost: defaultdict[ResendReason, list[SentEntry]] = defaultdict(list)
        for answer in sorted((task.result() for task in done), key=lambda one: one.entries[0].seq):
            sweep.count(answer)
            self._note(answer)
            held += answer.held or ()
            for entry, reason in self._lost(answer):
                lost[reason].append(entry)
        if held:
            await self._confirmations.confirm([entry.seq for entry in held])
            self._unconfirmed.confirmed(len(held))
            self._report.confirmed(held)
        for reason, entries in lost.items():
            await self._confirmations.resend([entry.seq for entry in entries], NOTES[reason])
            self._report.resent(reason, entries)

    def _note(self, answer: _Answer) -> None:
        """Learn about Inngest from an answer or its absence."""
        now = self._clock()
        if answer.held is not None:
            progress = self._progress.with_answer(now)
            self._progress = progress.with_held(answer.held, answer.read_at)
        elif answer.fault and answer.fault.refused:
            until = now + self._policy.refused_seconds
            environment = answer.entries[0].meta.environment
            self._refused[environment] = _Refusal(until, str(answer.fault))
        elif answer.fault:
            self._progress = self._progress.with_silence(now, away=not answer.fault.reached)

    def _lost(self, answer: _Answer) -> Iterator[tuple[SentEntry, ResendReason]]:
        """The rows that must be sent again."""
        if answer.held is None:
            return
        # Of rows that were asked for together, a newer one may have been stored meanwhile.
        known = replace(
            answer.progress.with_held(answer.held, answer.read_at),
            newest_held=answer.progress.newest_held,
        )
        held = {entry.seq for entry in answer.held}
        for entry in answer.entries:
            reason = resend_reason(entry, known, self._policy, answer.read_at)
            if entry.seq not in held and reason is not None:
                yield entry, reason

    async def _conclude(self, sweep: _Sweep) -> None:
        """Tell what the sweep found, and count again what is unconfirmed."""
        if sweep.read_all:
            self._swept_at = self._clock()
            self._unconfirmed.refused = dict(sweep.refused)
            known = self._refused.items()
            self._refused = {name: one for name, one in known if name in sweep.refused}
        self._unconfirmed.recount(await self._confirmations.count_sent())
        words = [str(sweep.fault)] if sweep.fault else [one.words for one in self._refused.values()]
        fault = " ".join(words[:_SHOWN]) or None
        self._report.swept(sweep.found, self._unconfirmed.count, fault)
        if sweep.fault and not sweep.answers:
            await self._confirmations.stop_asking()

    async def _wait_for_sent(self) -> None:
        """Wait until this process sends a row, or until it is time to look for others' rows.

        A row that was sent during the last sweep ends the wait at once.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._policy.idle_seconds):
                await self._sent.wait()
        self._sent.clear()


class _Sweep:
    """The course of one sweep.

    `fault` is the last reason why a question got no answer, `refused` counts the rows of
    environments that can't be asked about.
    """

    def __init__(self, *, whole: bool) -> None:
        self.found = 0
        self.answers = 0
        self.fault: InngestApiError | None = None
        self.refused: defaultdict[str | None, int] = defaultdict(int)
        self.read_all = False
        self._whole = whole
        self._quiet_rows = 0
        self._silences = 0

    def count(self, answer: _Answer) -> None:
        """Take over an answer or its absence."""
        rows = len(answer.entries)
        if answer.held is not None:
            self.answers += 1
            self._silences = 0
            self.found += len(answer.held)
            self._quiet_rows = 0 if answer.held else self._quiet_rows + rows
        elif answer.fault and answer.fault.refused:
            self.refused[answer.entries[0].meta.environment] += rows
        else:
            self.fault = answer.fault
            self._silences += 1

    def ends(self, policy: ConfirmationPolicy) -> bool:
        """True when it is of no use to ask about more rows now."""
        is_quiet = self._quiet_rows >= policy.quiet_rows and not self._whole
        return is_quiet or self._silences >= policy.silences


class _Lines:
    """EventPages over `line` where it is free, else over `more`; at most `questions` at a time."""

    def __init__(self, line: EventPages, more: EventPages, questions: int) -> None:
        self._line, self._more = line, more
        self._is_line_free = True
        self._questions = asyncio.Semaphore(questions)

    async def page(
        self, before: str, limit: int, environment: str | None = None
    ) -> Sequence[HeldEvent]:
        """See EventPages.page."""
        async with self._questions:
            if not self._is_line_free:
                return await self._more.page(before, limit, environment)
            self._is_line_free = False
            try:
                return await self._line.page(before, limit, environment)
            finally:
                self._is_line_free = True
