"""Who is told of a batch before its commit, and on which thread."""

from __future__ import annotations

import asyncio
import threading

from service.outbox.foresight import Foresight
from service.outbox.model import Batch

BATCH, LATER = Batch("c-1", (), b""), Batch("c-2", (), b"")


async def test_the_listener_is_told_on_its_event_loop_from_any_thread() -> None:
    foresight = Foresight()
    told: list[tuple[Batch, int]] = []
    with foresight.told(lambda batch: told.append((batch, threading.get_ident()))):
        await asyncio.to_thread(foresight.foresee, BATCH)
        await asyncio.sleep(0)
    assert told == [(BATCH, threading.get_ident())]


async def test_what_is_foreseen_without_a_listener_is_told_to_nobody() -> None:
    foresight = Foresight()
    told: list[Batch] = []
    foresight.foresee(BATCH)
    with foresight.told(told.append):
        await asyncio.sleep(0)
    foresight.foresee(LATER)
    await asyncio.sleep(0)
    assert told == []
