"""Events for several Inngest environments: those of one commit are numbered by environment."""

from __future__ import annotations

import asyncio
import itertools

import msgspec

from service.outbox.event import Event, Meta
from tests.support.storage import Outbox, claim, event

EVENTS = 40
# A store may begin its commit with the first call alone, and end it before the last ones.
FEW_REQUESTS = 12


def alternating(position: int) -> Event:
    return msgspec.structs.replace(
        event(), meta=Meta(environment=["branch", None, "other"][position % 3])
    )


async def test_events_whose_environments_alternate_are_sent_in_few_requests(
    outbox: Outbox,
) -> None:
    events = [alternating(position) for position in range(EVENTS)]
    receipts = await asyncio.gather(*(outbox.intake.append(one) for one in events))
    assert [receipt.event_id for receipt in receipts] == [one.id for one in events]
    batch = await claim(outbox)
    numbered = {receipt.event_id: receipt.seq for receipt in receipts}
    assert [numbered[entry.event_id] for entry in batch.entries] == sorted(numbered.values())
    requests = itertools.groupby(batch.entries, key=lambda entry: entry.meta.environment)
    assert len(list(requests)) <= FEW_REQUESTS
