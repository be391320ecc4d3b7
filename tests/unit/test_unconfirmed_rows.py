"""Rows that were sent while confirmation was on become delivered when it is off."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest
import structlog

from service.outbox.ports import Confirmations
from service.outbox.sent_entry import SentEntry
from service.relay.unconfirmed import deliver_left_rows, deliver_unconfirmed
from tests.support.confirmer_desk import Desk
from tests.support.virtual_time import in_virtual_time


class Sent:
    """So many sent rows, of which some are settled by another process meanwhile."""

    def __init__(self, count: int, gone: Sequence[int]) -> None:
        self.rows = range(1, count + 1)
        self.gone = gone
        self.limits: list[int] = []
        self.asked: list[int] = []

    async def sent(self, limit: int, after_seq: int = 0) -> Sequence[SentEntry]:
        self.limits.append(limit)
        found = [seq for seq in self.rows if seq > after_seq][:limit]
        return [SentEntry(seq, f"e-{seq}", 0, 0.0) for seq in found]

    async def confirm(self, seqs: Sequence[int]) -> int:
        self.asked += seqs
        return sum(seq not in self.gone for seq in seqs)


@pytest.mark.parametrize(
    ("count", "gone", "pages"), [(0, [], 1), (1, [1], 2), (1, [], 2), (1201, [7], 4)]
)
async def test_all_rows_become_delivered_page_by_page(
    count: int, gone: Sequence[int], pages: int
) -> None:
    store, delivered = Sent(count, gone), count - len(gone)
    with structlog.testing.capture_logs() as lines:
        assert await deliver_unconfirmed(cast("Confirmations", store)) == delivered
    assert (store.asked, store.limits) == ([*store.rows], [500] * pages)
    said = {"event": "delivered_unconfirmed", "log_level": "warning", "events": delivered}
    assert lines == ([said] if delivered else [])


async def test_rows_that_were_answered_later_stay_sent() -> None:
    store = Sent(3, [])
    assert await deliver_unconfirmed(cast("Confirmations", store), answered_seconds=1.0) == 0
    assert store.asked == []


async def left_by_others(desk: Desk, seconds: float) -> None:
    """Look after the rows that others have left, for so long."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(deliver_left_rows(cast("Confirmations", desk)), seconds)


@in_virtual_time
async def test_rows_that_others_left_are_delivered_ten_minutes_after_their_answer() -> None:
    desk = Desk()
    desk.answered(1, at=-600.0)
    desk.answered(2, 3, at=-599.0)
    desk.answered(4)
    await left_by_others(desk, 59)
    assert desk.confirmed_seqs == [[1]]
    await left_by_others(desk, 3600)
    assert desk.confirmed_seqs == [[1], [2, 3], [4]]
    assert (len(desk.counts), desk.questions) == (61, [])


@in_virtual_time
async def test_rows_that_another_process_asks_about_are_left_to_it() -> None:
    desk = Desk()
    desk.turns = [False]
    desk.answered(1)
    await left_by_others(desk, 3600)
    assert (desk.confirmed_seqs, desk.stopped) == ([], 0)


@in_virtual_time
async def test_the_turn_to_ask_is_given_back_and_taken_only_for_sent_rows() -> None:
    desk = Desk()
    await left_by_others(desk, 3600)
    assert desk.stopped == 0
    desk.answered(1, at=0.0)
    await left_by_others(desk, 3600)
    assert (desk.confirmed_seqs, desk.stopped) == ([[1]], 1)


@in_virtual_time
async def test_a_store_that_can_not_be_asked_is_asked_again_in_a_minute() -> None:
    desk = Desk()
    desk.store_fails = True
    with structlog.testing.capture_logs() as lines:
        await left_by_others(desk, 119)
    failed = {"event": "confirm_failed", "log_level": "warning", "reason": "no disk"}
    assert (lines, desk.counts) == ([failed] * 2, [0, 60])
