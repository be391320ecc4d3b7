"""Outboxes to look at: full ones, with events in every state and a day of history."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import msgspec

from inngest_outbox.identity.user import User
from inngest_outbox.outbox.event import Event, encode_event
from inngest_outbox.outbox.figures import MINUTE_MS, Sample
from inngest_outbox.outbox.model import Dead, Named, Retry, Settlement
from inngest_outbox.runs.figures import NAMES, KeptNames, NameView
from inngest_outbox.runs.turn import SCOPE
from tests.support.operator_pages import Data
from tests.support.storage import Outbox, ask, claim

_NAMES = ("documents/aws.index", "documents/aws.index", "invoices/created")
_REFUSED = "400 name: the event name is reserved"
_TROUBLE = "503 Service Unavailable"


@dataclass(frozen=True, slots=True)
class Scene:
    """The ids of some events that are worth a look."""

    dead: str
    waiting: str


async def fill(outbox: Outbox) -> Scene:
    """Events of the last hour in every state but sent, some acts in the audit, a day's samples."""
    now_ms = int(time.time() * 1000)
    for age in range(160, 0, -1):
        await outbox.intake.append(_event(age, now_ms))
    batch = await claim(outbox, ask(200))
    seqs = [entry.seq for entry in batch.entries]
    dead = [Dead(seq, 3, "rejected", _REFUSED) for seq in seqs[:9]]
    large = [Dead(seq, 1, "too_large", "413 Payload Too Large") for seq in seqs[9:12]]
    again = [Retry(seq, 900.0, 1, isolated=True, note="answered 500 alone") for seq in seqs[140:]]
    settlement = Settlement(batch.claim, delivered=seqs[12:140], dead=[*dead, *large], retry=again)
    await outbox.queue.settle(settlement)
    ids = [entry.event_id for entry in batch.entries]
    await outbox.repairs.discard(Named(tuple(ids[:2])), actor="grace@example.com")
    await outbox.trail.record(
        "payload", actor="ada@example.com", event_id=ids[5], detail="looked at the payload"
    )
    said = "Inngest is being upgraded"
    await outbox.repairs.set_paused(paused=True, actor="ada@example.com", reason=said)
    await outbox.repairs.set_paused(paused=False, actor="ada@example.com", reason="it is upgraded")
    await remember_a_day(outbox, now_ms)
    await outbox.scopes.save_scope(SCOPE, NAMES, msgspec.to_builtins(_names(now_ms)))
    return Scene(dead=ids[5], waiting=ids[145])


async def remember_a_day(outbox: Outbox, now_ms: int) -> None:
    """A day's samples, with an outage of 12 minutes that ended half an hour ago."""
    this_minute = now_ms - now_ms % MINUTE_MS
    for age in range(1440, 0, -1):
        await outbox.samples.add(_sample(this_minute - age * MINUTE_MS, age))


def _names(now_ms: int) -> KeptNames:
    """A name that is well, and one whose runs are missing."""
    well = NameView(
        name="documents/aws.index",
        expected=True,
        sampled=90,
        with_run=90,
        held_median_seconds=0.04,
        held_p95_seconds=0.21,
        start_median_seconds=0.3,
        start_p95_seconds=1.2,
        outcomes={"completed": 86, "failed": 3, "running": 1},
        per_second=31.5,
        dead=6,
        ran=90,
        last_run_at=now_ms,
    )
    lost = NameView(
        name="invoices/created",
        expected=True,
        sampled=12,
        held_median_seconds=0.05,
        held_p95_seconds=0.3,
        per_second=2.1,
        dead=4,
        ran=40,
        no_run_since=now_ms - 900_000,
    )
    return KeptNames(now_ms, (well, lost))


def _event(age: int, now_ms: int) -> Event:
    user = User("https://id.example.com", f"u-{age % 7}", f"user{age % 7}@example.com", None)
    accepted_ms = now_ms - age * 20_000
    data = Data(f"reports/2026/q{age}.pdf")
    return encode_event(_NAMES[age % len(_NAMES)], data, user, accepted_ms)


def _sample(at_ms: int, age: int) -> Sample:
    daily = 40 + 30 * math.sin(age / 229) + 6 * math.sin(age / 7)
    outage = 30 < age <= 42
    backlog = round((42 - age) * 60 * daily) if outage else 0
    drained = max(0, round(12 * 60 * daily * (1 - (30 - age) / 4))) if 26 < age <= 30 else 0
    state = "backing_off" if outage else "recovering" if 29 < age <= 30 else "healthy"
    return Sample(
        at_ms=at_ms,
        waiting=backlog + drained + age % 5,
        dead=10,
        accepted_rate=daily,
        delivered_rate=0.0 if outage else daily + (6 * daily if drained else 0.0),
        state=state,
        reason=_TROUBLE if outage else "",
    )
