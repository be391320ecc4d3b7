"""Who is told of a batch before its commit and after it, when, and on which thread."""

from __future__ import annotations

import asyncio
import threading

from service.outbox.foresight import Foresight
from service.outbox.model import Batch

BATCH, LATER = Batch("c-1", (), b""), Batch("c-2", (), b"")


def _fail(batch: Batch) -> None:
    raise AssertionError(batch)


async def test_the_listener_is_told_on_its_event_loop_from_any_thread() -> None:
    foresight = Foresight()
    told: list[tuple[Batch, int]] = []
    with foresight.told(lambda batch: told.append((batch, threading.get_ident())), _fail):
        await asyncio.to_thread(foresight.foresee, BATCH)
        await asyncio.sleep(0)
    assert told == [(BATCH, threading.get_ident())]


async def test_what_is_foreseen_without_a_listener_is_told_to_nobody() -> None:
    foresight = Foresight()
    told: list[Batch] = []
    foresight.foresee(BATCH)
    foresight.commit(BATCH)
    with foresight.told(told.append, told.append):
        await asyncio.sleep(0)
    foresight.foresee(LATER)
    foresight.commit(LATER)
    await asyncio.sleep(0)
    assert told == []


async def test_the_listener_knows_of_a_commit_before_those_who_wait_for_it() -> None:
    foresight = Foresight()
    order: list[object] = []
    result = asyncio.get_running_loop().create_future()
    result.add_done_callback(lambda done: order.append(done.result()))
    with foresight.told(_fail, order.append):
        foresight.commit(BATCH)
        result.set_result("result")
        assert order == []
        await asyncio.sleep(0)
    assert order == [BATCH, "result"]


def test_of_the_claim_that_was_committed_last_it_is_known_whether_bytes_may_have_left() -> None:
    foresight = Foresight()
    assert not foresight.may_have_left("c-1")
    foresight.leaves("c-1")
    assert foresight.may_have_left("c-1")
    assert not foresight.may_have_left("c-2")
    foresight.leaves("c-2")
    assert not foresight.may_have_left("c-1")
