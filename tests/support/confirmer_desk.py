"""A confirmer between rows and an Inngest that a test sets, on a virtual loop, all of it noted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from service.errors import InngestApiError, OutboxUnavailableError
from service.inngest.held import HeldEvent
from service.outbox.inngest_id import encode_ulid
from service.outbox.sent_entry import SentEntry
from service.relay.confirmation import ConfirmationPolicy, ResendReason
from service.relay.confirmer import Confirmer
from service.relay.unconfirmed import Unconfirmed
from tests.support.memory_rows import IDS
from tests.support.virtual_time import now

CHUNK = 2
POLICY = ConfirmationPolicy(chunk_rows=CHUNK)


class Desk:
    """A `Confirmations`, `EventPages` and report in one; `told` is what the report was told.

    `sent_at` is when each sent row was answered; `turns` are the answers to who may ask, the last
    of which stays. `counts` and `questions` are the seconds of reads of the count and of pages.
    """

    def __init__(self, *, policy: ConfirmationPolicy | None = POLICY) -> None:
        self.sent_at: dict[int, float] = {}
        self.held: set[int] = set()
        self.turns = [True]
        self.fault: Exception | None = None
        self.store_fails = False
        self.reads: list[int] = []
        self.counts: list[float] = []
        self.questions: list[float] = []
        self.confirmed_seqs: list[list[int]] = []
        self.again: list[tuple[list[int], str]] = []
        self.sent_again = asyncio.Event()
        self.stopped = 0
        self.told: list[tuple[object, ...]] = []
        self.unconfirmed = Unconfirmed(1000)
        self.confirmer = Confirmer(
            self,  # type: ignore[arg-type]
            self,
            IDS,
            self.unconfirmed,
            self,  # type: ignore[arg-type]
            policy=policy,
        )

    def answered(self, *seqs: int, at: float | None = None) -> None:
        """Rows that Inngest answered at this second, else now."""
        self.sent_at |= dict.fromkeys(seqs, now() if at is None else at)

    async def count_sent(self) -> int:
        self.counts.append(now())
        if self.store_fails:
            raise OutboxUnavailableError("no disk")
        return len(self.sent_at)

    async def may_ask(self) -> bool:
        return self.turns.pop(0) if self.turns[1:] else self.turns[0]

    async def stop_asking(self) -> None:
        self.stopped += 1

    async def sent(self, limit: int, after_seq: int = 0) -> list[SentEntry]:
        self.reads.append(after_seq)
        seqs = sorted(seq for seq in self.sent_at if seq > after_seq)[:limit]
        return [SentEntry(seq, f"e-{seq}", 0, now() - self.sent_at[seq]) for seq in seqs]

    async def confirm(self, seqs: Sequence[int]) -> int:
        self.confirmed_seqs.append([*seqs])
        for seq in seqs:
            del self.sent_at[seq]
        return len(seqs)

    async def resend(self, seqs: Sequence[int], note: str) -> int:
        self.again.append(([*seqs], note))
        self.sent_again.set()
        for seq in seqs:
            del self.sent_at[seq]
        return len(seqs)

    async def page(
        self, before: str, limit: int, environment: str | None = None
    ) -> list[HeldEvent]:
        del environment
        self.questions.append(now())
        if self.fault:
            raise self.fault
        ulids = [(encode_ulid(IDS.number(seq, 0)), f"e-{seq}") for seq in sorted(self.held)]
        below = [HeldEvent(*one) for one in ulids if one[0] < before]
        return below[::-1][:limit]

    def confirmed(self, held: Sequence[SentEntry]) -> None:
        self.told.append(("confirmed", [entry.seq for entry in held]))

    def resent(self, reason: ResendReason, entries: Sequence[SentEntry]) -> None:
        self.told.append(("resent", reason, [entry.seq for entry in entries]))

    def swept(self, found: int, unconfirmed: int) -> None:
        self.told.append(("swept", found, unconfirmed))

    def others_ask(self) -> None:
        self.told.append(("others ask",))

    def failed(self, reason: str) -> None:
        self.told.append(("failed", reason))


AWAY = InngestApiError("away", reached=False)
REFUSING = InngestApiError("refusing")
