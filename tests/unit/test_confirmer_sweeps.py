"""One look at the sent rows: which are asked for, what is made of each answer, and what is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest
import structlog

from service.errors import InngestApiError
from service.relay.confirmation import NOTES, ConfirmationPolicy, ResendReason
from tests.support.confirmer_desk import AWAY, REFUSING, Desk
from tests.support.virtual_time import in_virtual_time, now


@contextlib.asynccontextmanager
async def running(desk: Desk) -> AsyncIterator[None]:
    """The confirmer at work; it must not end by itself."""
    task = asyncio.create_task(desk.confirmer.run())
    try:
        yield
    finally:
        task.cancel()
        [ended] = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError)


@in_virtual_time
async def test_a_sweep_goes_through_all_rows_and_settles_what_is_held() -> None:
    desk = Desk()
    desk.answered(*range(1, 8))
    desk.held = {1, 2, 4, 7}
    assert await desk.confirmer.sweep() == 4
    assert desk.reads == [0, 2, 4, 6, 7]
    assert desk.confirmed_seqs == [[1, 2], [4], [7]]
    assert desk.told == [("confirmed", [1, 2]), ("confirmed", [4]), ("confirmed", [7])]
    assert (desk.unconfirmed.count, desk.again) == (3, [])


@in_virtual_time
async def test_a_sweep_ends_at_two_chunks_in_a_row_that_are_not_stored_yet() -> None:
    desk = Desk()
    desk.answered(*range(1, 16))
    await desk.confirmer.sweep()
    desk.reads.clear()
    desk.held = {3}
    assert await desk.confirmer.sweep() == 1
    assert desk.reads == [0, 2, 4, 6]
    desk.reads.clear()
    await desk.confirmer.sweep()
    assert desk.reads == [0, 2]
    assert desk.unconfirmed.count == 14


@in_virtual_time
async def test_once_in_some_seconds_a_sweep_asks_for_every_row() -> None:
    desk = Desk(policy=ConfirmationPolicy(chunk_rows=1, sweep_seconds=8))
    desk.answered(1, 2, 3, 4)
    lengths = []
    for _ in range(18):
        desk.reads.clear()
        await desk.confirmer.sweep()
        lengths.append(len(desk.reads))
        await asyncio.sleep(1)
    assert lengths == [5, *[2] * 7, 5, *[2] * 7, 5, 2]


@in_virtual_time
async def test_a_sweep_that_ended_early_was_no_sweep_of_every_row() -> None:
    desk = Desk()
    desk.answered(*range(1, 8))
    desk.turns = [False, True]
    await desk.confirmer.sweep()
    assert desk.reads == [0]
    assert desk.unconfirmed.count == 7
    await desk.confirmer.sweep()
    assert desk.reads == [0, 0, 2, 4, 6, 7]


@in_virtual_time
async def test_rows_that_will_not_be_stored_are_sent_again_by_their_reason() -> None:
    desk = Desk()
    await asyncio.sleep(100)
    desk.answered(1, at=85.0)
    desk.answered(2, at=89.0)
    desk.answered(3, at=96.0)
    desk.held = {3}
    await desk.confirmer.sweep()
    assert desk.again == []
    assert await desk.confirmer.sweep() == 0
    assert desk.again == [([1], NOTES[ResendReason.PASSED])]
    assert desk.told[-1] == ("resent", ResendReason.PASSED, [1])
    assert (sorted(desk.sent_at), desk.unconfirmed.count) == ([2], 1)


@in_virtual_time
async def test_a_sweep_fails_where_inngest_can_not_be_asked() -> None:
    desk = Desk()
    desk.answered(1)
    desk.fault = AWAY
    with pytest.raises(InngestApiError):
        await desk.confirmer.sweep()


@in_virtual_time
async def test_what_is_stored_is_asked_for_soon_after_it_was_sent_and_told() -> None:
    desk = Desk()
    async with running(desk):
        await asyncio.sleep(101)
        assert desk.counts == [float(at) for at in (0, *(5.25 * n for n in range(1, 20)))]
        desk.answered(1)
        desk.held = {1}
        desk.unconfirmed.sent(1)
        await asyncio.sleep(0.3)
        assert desk.questions == [101.25]
        assert desk.told == [("confirmed", [1]), ("swept", 1, 0)]
        desk.counts.clear()
        await asyncio.sleep(12)
        assert desk.counts == [106.5, 111.75]


@in_virtual_time
async def test_a_new_connection_is_a_sign_that_inngest_was_away() -> None:
    desk = Desk(policy=None)
    desk.answered(1)
    desk.unconfirmed.sent(1)
    async with running(desk):
        await asyncio.sleep(1)
        desk.confirmer.reconnected()
        await desk.sent_again.wait()
        assert 5 < now() < 12
    assert desk.again == [([1], NOTES[ResendReason.RESTARTED])]


@in_virtual_time
async def test_pauses_grow_while_nothing_is_found_and_are_short_after_a_find() -> None:
    desk = Desk()
    desk.answered(1, 2)
    async with running(desk):
        await asyncio.sleep(15)
        assert desk.questions == [0, 0.5, 1.5, 3.5, 7.5, 11.5]
        desk.held = {1}
        await asyncio.sleep(1)
        assert desk.questions[6:] == [15.5, 15.75]
    assert desk.told[-2:] == [("swept", 1, 1), ("swept", 0, 1)]


@in_virtual_time
async def test_an_inngest_that_can_not_be_asked_is_told_and_another_may_try() -> None:
    desk = Desk()
    desk.answered(1)
    desk.unconfirmed.sent(1)
    desk.fault = AWAY
    async with running(desk):
        await asyncio.sleep(1)
    assert desk.questions == [0, 0.5]
    assert desk.told == [("failed", "away")] * 2
    assert desk.stopped == 2
    assert desk.again == []


@in_virtual_time
async def test_what_was_settled_before_a_question_failed_makes_room() -> None:
    class Failing(Desk):
        async def confirm(self, seqs: Sequence[int]) -> int:
            self.fault = REFUSING
            return await super().confirm(seqs)

    desk = Failing()
    desk.answered(1, 2, 3, 4)
    desk.unconfirmed.sent(4)
    desk.held = {1, 2}
    async with running(desk):
        await asyncio.sleep(1)
    assert desk.confirmed_seqs == [[1, 2]]
    assert desk.unconfirmed.count == 2


@pytest.mark.parametrize(("fault", "seconds"), [(AWAY, 9), (REFUSING, 62)])
@in_virtual_time
async def test_only_an_inngest_that_was_away_may_have_lost_what_it_took(
    fault: Exception, seconds: float
) -> None:
    desk = Desk()
    desk.answered(1)
    desk.unconfirmed.sent(1)
    async with running(desk):
        desk.fault = fault
        await asyncio.sleep(0.1)
        desk.fault = None
        await desk.sent_again.wait()
        assert seconds - 4 < now() < seconds + 4
    reason = ResendReason.RESTARTED if fault is AWAY else ResendReason.STALLED
    assert desk.again == [([1], NOTES[reason])]


@in_virtual_time
async def test_while_another_process_asks_the_count_is_read_and_told() -> None:
    desk = Desk()
    desk.turns = [False]
    desk.answered(1, 2, 3)
    async with running(desk):
        await asyncio.sleep(2)
        assert desk.counts == [0, 0.5, 1.5]
        assert desk.unconfirmed.count == 3
        assert desk.told == [("others ask",)] * 3
        del desk.sent_at[1]
        await asyncio.sleep(2)
        assert desk.counts[3:] == [3.5, 3.75]
        desk.sent_at.clear()
        await asyncio.sleep(1)
        assert desk.unconfirmed.count == 0
    assert desk.told == [("others ask",)] * 5
    assert desk.questions == []


@in_virtual_time
async def test_a_first_turn_begins_without_knowledge_of_the_store() -> None:
    desk = Desk()
    async with running(desk):
        await asyncio.sleep(1000)
        desk.answered(1, at=0.0)
        desk.unconfirmed.sent(1)
        await desk.sent_again.wait()
    assert 1060 < now() < 1066
    assert desk.again == [([1], NOTES[ResendReason.STALLED])]


@in_virtual_time
async def test_a_store_that_fails_is_told_and_asked_again_after_growing_pauses() -> None:
    desk = Desk()
    desk.answered(1)
    desk.unconfirmed.sent(1)
    desk.store_fails = True
    with structlog.testing.capture_logs() as lines:
        async with running(desk):
            await asyncio.sleep(2)
    assert lines == [
        {"event": "confirm_failed", "log_level": "warning", "reason": "no disk"} for _ in range(3)
    ]
    assert desk.counts == [0, 0.5, 1.5]
    assert desk.unconfirmed.count == 1
