"""Settlements: each is written once, however often the store fails, and counted as it was."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest
import structlog

from service.errors import OutboxUnavailableError
from service.outbox.model import Retry, Settlement
from service.outbox.ports import Queue
from service.relay.breaker_sync import BreakerSync
from service.relay.report import Report
from service.relay.settler import Settler
from service.relay.unconfirmed import Unconfirmed
from tests.support.virtual_time import in_virtual_time


class World:
    """A settler, the store that it writes to, and those who are told."""

    def __init__(self, answers: Sequence[int | Exception] = (), max_unconfirmed: int = 0) -> None:
        self.answers = list(answers)
        self.written: list[Settlement] = []
        self.counted: list[tuple[str, int]] = []
        self.stale: list[tuple[str, int]] = []
        self.unconfirmed = Unconfirmed(max_unconfirmed) if max_unconfirmed else None
        one = cast("Any", self)
        self.settler = Settler(
            cast("Queue", one), cast("BreakerSync", one), cast("Report", one), self.unconfirmed
        )

    async def settle(self, settlement: Settlement) -> int:
        answer = self.answers.pop(0) if self.answers else 0
        if isinstance(answer, Exception):
            raise answer
        self.written.append(settlement)
        return answer

    def answered(self, count: int) -> None:
        self.counted.append(("answered", count))

    def delivered(self, count: int) -> None:
        self.counted.append(("delivered", count))

    def lease_lost(self, claim: str, rows: int) -> None:
        self.stale.append((claim, rows))


@in_virtual_time
async def test_a_store_that_fails_is_tried_again_four_times_a_second_until_it_has_it() -> None:
    world = World([OutboxUnavailableError("no disk")] * 3)
    with structlog.testing.capture_logs() as told:
        await world.settler.settle(Settlement("c", delivered=[1]))
    assert world.written == [Settlement("c", delivered=[1])]
    assert asyncio.get_running_loop().time() == 0.75
    failed = {"event": "settle_failed", "log_level": "warning", "reason": "no disk"}
    assert told == [failed] * 3


async def test_rows_of_a_lost_lease_are_reported() -> None:
    world = World([2])
    await world.settler.settle(Settlement("c", delivered=[1, 2, 3]))
    assert world.stale == [("c", 2)]


@pytest.mark.parametrize("can_confirm", [False, True])
@pytest.mark.parametrize("confirms", [False, True])
async def test_what_was_taken_is_sent_where_it_can_be_confirmed_else_delivered(
    *, can_confirm: bool, confirms: bool
) -> None:
    world = World(max_unconfirmed=10 if confirms else 0)
    retry = [Retry(3, 0.0, 0, isolated=False)]
    taken = Settlement("c", delivered=[1, 2], retry=retry)
    written = await world.settler.settle_answer(taken, None, can_confirm=can_confirm)
    as_sent = can_confirm and confirms
    assert written == (Settlement("c", sent=[1, 2], retry=retry) if as_sent else taken)
    assert world.written == [written]
    counted = [("answered", 2)] if as_sent else [("answered", 2), ("delivered", 2)]
    assert world.counted == counted
    if world.unconfirmed is not None:
        assert world.unconfirmed.count == (2 if as_sent else 0)
