"""A real relay and confirmer between an outbox and a simulated Inngest, with a record of its calls.

The model of a history knows each row that moves, so each claim, settlement, confirmation and
resend of the relay is recorded as the senders' are.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from inngest_outbox.bootstrap.stores import Outbox
from inngest_outbox.outbox.inngest_id import InngestIds
from inngest_outbox.outbox.model import Batch, ClaimRequest, SentEntry, Settlement
from inngest_outbox.outbox.ports import Delivery
from tests.support.beside import beside
from tests.support.linearizability.record import Recorder
from tests.support.simulation.delivering import delivering
from tests.support.simulation.inline_world import Clocks
from tests.support.simulation.simulated_inngest import SimulatedInngest

MAX_UNCONFIRMED = 100
# A lease does not end in a history.
SEND_TIMEOUT_SECONDS = 300.0
_RATE = 200.0
_MODES = (None, None, None, "lost", "away")
_MODE_SECONDS = 0.3


@contextlib.asynccontextmanager
async def recorded_relay(
    outbox: Outbox, recorder: Recorder, chance: random.Random
) -> AsyncIterator[None]:
    """Deliver to an Inngest that loses answers and events now and then, until the block ends."""
    inngest = SimulatedInngest(chance, Clocks(asyncio.get_running_loop()), _RATE)
    recorded = _RecordedOutbox(outbox, recorder)
    async with (
        delivering(recorded, inngest, MAX_UNCONFIRMED, SEND_TIMEOUT_SECONDS),
        beside(inngest.run(), _trouble(inngest, chance)),
    ):
        yield


async def _trouble(inngest: SimulatedInngest, chance: random.Random) -> None:
    while True:
        mode = chance.choice(_MODES)
        if mode == "away":
            inngest.stop()
        inngest.mode = mode
        await asyncio.sleep(chance.uniform(0, _MODE_SECONDS))


class _RecordedOutbox:
    """What a relay and a confirmer use of `outbox`."""

    def __init__(self, outbox: Outbox, recorder: Recorder) -> None:
        ids: dict[int, str] = {}
        self.delivery: Delivery = outbox.delivery
        self.queue = _RecordedQueue(outbox, recorder, ids)
        self.confirmations = _RecordedConfirmations(outbox, recorder, ids)


class _RecordedQueue:
    def __init__(self, outbox: Outbox, recorder: Recorder, ids: dict[int, str]) -> None:
        self._queue = outbox.queue
        self._record = recorder.watched
        self._ids = ids

    async def claim(self, ask: ClaimRequest) -> Batch:
        """The outbox's, which records it."""
        batch = await self._queue.claim(ask)
        self._ids |= {entry.seq: entry.event_id for entry in batch.entries}
        return batch

    async def settle(self, settlement: Settlement) -> int:
        """Recorded."""
        ends: dict[str, Sequence[Any]] = {
            "delivered": settlement.delivered,
            "sent": settlement.sent,
            "dead": [one.seq for one in settlement.dead],
            "pending": [one.seq for one in settlement.retry],
        }
        asked = {end: [self._ids[seq] for seq in seqs] for end, seqs in ends.items()}
        return await self._record("settle", asked, lambda: self._queue.settle(settlement), int)


class _RecordedConfirmations:
    def __init__(self, outbox: Outbox, recorder: Recorder, ids: dict[int, str]) -> None:
        self._confirmations = confirmations = outbox.confirmations
        self._record = recorder.watched
        self._ids = ids
        self.count_sent = confirmations.count_sent
        self.may_ask, self.stop_asking = confirmations.may_ask, confirmations.stop_asking

    @property
    def inngest_ids(self) -> InngestIds:
        """The outbox's."""
        return self._confirmations.inngest_ids

    async def sent(self, limit: int, after_seq: int = 0) -> Sequence[SentEntry]:
        """The outbox's."""
        entries = await self._confirmations.sent(limit, after_seq)
        self._ids |= {entry.seq: entry.event_id for entry in entries}
        return entries

    async def confirm(self, seqs: Sequence[int]) -> int:
        """Recorded."""
        return await self._moved("confirm", seqs, lambda: self._confirmations.confirm(seqs))

    async def resend(self, seqs: Sequence[int], note: str) -> int:
        """Recorded."""
        return await self._moved("resend", seqs, lambda: self._confirmations.resend(seqs, note))

    async def _moved(
        self, kind: str, seqs: Sequence[int], act: Callable[[], Awaitable[int]]
    ) -> int:
        return await self._record(kind, [self._ids[seq] for seq in seqs], act, int)
