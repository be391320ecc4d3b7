"""A relay and a confirmer at work between a model of the store and an Inngest that stores late."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

from service.inngest.send_result import SendResult
from service.observe.recorder import NullRecorder
from service.relay.breaker_sync import Announcement
from service.relay.confirmer import Confirmer
from service.relay.relay import Relay, RelayLimits
from service.relay.report import ConfirmationReport
from service.relay.unconfirmed import Unconfirmed
from tests.support.delivery_model import ModelInngest, ModelOutbox
from tests.support.memory_rows import IDS, MemoryRow
from tests.support.storing_inngest import StoringInngest
from tests.support.virtual_time import now


class LossyInngest(ModelInngest):
    """Hands what it takes to a store, under the ids of the seed."""

    def __init__(self, store: StoringInngest) -> None:
        super().__init__()
        self.store = store
        self.honours_seeds = True

    def _take(self, rows: list[tuple[int, str]]) -> SendResult:
        before = self.times.copy()
        result = super()._take(rows)
        taken = [seq for seq, _ in rows if self.times[seq] > before[seq]]
        self.store.send(taken)
        ids = tuple(IDS.ulid(seq, 0) for seq in taken)
        return replace(result, ids=ids) if ids and self.honours_seeds else result


class ConfirmedWorld:
    def __init__(self, rate: float, *, unconfirmed_max: int = 1_000) -> None:
        self.outbox = ModelOutbox()
        self.store = StoringInngest(rate)
        self.inngest = LossyInngest(self.store)
        self.unconfirmed = Unconfirmed(unconfirmed_max)
        self.most_unconfirmed = 0
        self.relay = Relay(
            self.outbox.queue,
            self.outbox.delivery,
            self.inngest,
            NullRecorder(),
            RelayLimits(
                max_events=50,
                max_bytes=1 << 20,
                senders=4,
                send_timeout_seconds=10,
                drain_seconds=30,
            ),
            ids=IDS,
            unconfirmed=self.unconfirmed,
            announcement=Announcement("self-hosted", "on (self-hosted)"),
        )
        self.confirmer = Confirmer(
            self.outbox.confirmations,
            self.store,
            IDS,
            self.unconfirmed,
            ConfirmationReport(
                NullRecorder(), self.relay.confirmed, on_fault=self.relay.tell_confirmation
            ),
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        works = (self.relay.run, self.relay.sync_breaker, self.confirmer.run, self.store.run)
        tasks = [asyncio.create_task(work()) for work in (*works, self._watch)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            await self.relay.stop()
            assert all(isinstance(one, asyncio.CancelledError) for one in done), done

    def stop_inngest(self) -> None:
        """It goes away; what it has not stored is lost."""
        self.inngest.mode = "away"
        self.store.stop()

    def start_inngest(self) -> None:
        self.inngest.mode = None
        self.store.away = False

    def add(self, *kinds: str) -> list[MemoryRow]:
        return [self.outbox.add(kind) for kind in kinds]

    async def until(self, rows: list[MemoryRow], seconds: float) -> float:
        """Wait until every row is settled; how long it took."""
        began = now()
        while left := [row for row in rows if row.settled_at is None]:
            waited = now() - began
            assert waited <= seconds, f"not settled after {waited:g} s: {len(left)}, {left[:3]}"
            await asyncio.sleep(0.1)
        return now() - began

    async def _watch(self) -> None:
        while True:
            unconfirmed = await self.outbox.confirmations.count_sent()
            self.most_unconfirmed = max(self.most_unconfirmed, unconfirmed)
            await asyncio.sleep(0.05)
