"""One turn of the claim loop: what it waits for, what it claims, when it gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest
import structlog

from service.errors import OutboxUnavailableError
from service.outbox.model import Batch, ClaimRequest, Entry, Isolated
from service.outbox.ports import Queue
from service.relay.breaker import Breaker
from service.relay.breaker_sync import BreakerSync
from service.relay.claim_loop import ClaimLoop
from service.relay.sends import BreakerState, Permit, SendsInFlight
from service.relay.unconfirmed import Unconfirmed
from tests.support.breakers import IDLE, fresh, passed
from tests.support.virtual_time import now, run_in_virtual_time

BACKING_OFF = fresh().with_wait(BreakerState.BACKING_OFF, "why", 0.0)
RECOVERING = replace(passed(BACKING_OFF), reason="why")


def batch(events: int) -> Batch:
    return Batch("c", tuple(Entry(seq, f"e-{seq}", 0, "u") for seq in range(events)), b"")


class World:
    """A claim loop, the queue that it claims from, and those whom it calls.

    The queue gives `rows` after `seconds`, never where they are None, or raises `fault`.
    `close_seconds` is how long it takes to abort a claim.
    """

    def __init__(
        self, breaker: Breaker | None = None, unconfirmed: Unconfirmed | None = None
    ) -> None:
        self.breaker = breaker or fresh()
        self.sends = SendsInFlight(4, lambda _: None)
        self.rows: Batch = batch(1)
        self.seconds: float | None = 0.0
        self.close_seconds = 0.0
        self.fault: Exception | None = None
        self.claims: list[tuple[float, ClaimRequest]] = []
        self.begun: list[tuple[Permit, Batch]] = []
        self.nothing_due_at: list[float] = []
        self.beats: list[float] = []
        self.loop = ClaimLoop(
            cast("Queue", self),
            cast("BreakerSync", self),
            self.sends,
            unconfirmed,
            lease_seconds=40.0,
            begin=lambda permit, rows: self.begun.append((permit, rows)),
            nothing_due=lambda: self.nothing_due_at.append(now()),
            beat=lambda: self.beats.append(now()),
        )

    async def claim(self, request: ClaimRequest) -> Batch:
        self.claims.append((now(), request))
        if self.fault is not None:
            raise self.fault
        try:
            if self.seconds != 0.0:
                await asyncio.sleep(self.seconds or 1e9)
        finally:
            if self.close_seconds:
                await asyncio.sleep(self.close_seconds)
        return self.rows

    async def turn(self) -> float:
        """One turn; when it ended."""
        await self.loop.turn()
        return now()


def after(seconds: float, call: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(seconds, call)


def test_a_claim_is_for_what_the_breaker_permits_and_begins_its_delivery() -> None:
    async def main() -> None:
        world = World()
        assert await world.turn() == 0.0
        wanted = ClaimRequest(500, 1 << 20, 40.0, 0.2, Isolated.FIRST)
        assert world.claims == [(0.0, wanted)]
        assert world.begun == [(world.breaker.permit(IDLE), world.rows)]

    run_in_virtual_time(main())


@pytest.mark.parametrize(
    ("count", "most", "share"), [(500, 480, 0.2), (880, 100, 1.0), (879, 101, 0.2), (0, 500, 0.2)]
)
def test_no_more_is_claimed_than_may_be_unconfirmed_and_the_last_tenth_is_for_fresh_events(
    count: int, most: int, share: float
) -> None:
    async def main() -> None:
        unconfirmed = Unconfirmed(1000)
        unconfirmed.count = count
        world = World(unconfirmed=unconfirmed)
        world.sends.enter(0, isolated=False, events=20)
        await world.turn()
        [(_, request)] = world.claims
        assert (request.max_events, request.fresh_share) == (most, share)

    run_in_virtual_time(main())


def test_without_room_nothing_is_claimed_until_there_is_some() -> None:
    async def main() -> None:
        unconfirmed = Unconfirmed(1000)
        unconfirmed.count = 1000
        world = World(unconfirmed=unconfirmed)
        assert await world.turn() == 1.0
        after(0.5, lambda: unconfirmed.recount(999))
        assert await world.turn() == 1.5
        assert not world.claims
        await world.turn()
        assert len(world.claims) == 1

    run_in_virtual_time(main())


def test_a_turn_waits_for_the_breaker_but_no_longer_than_a_second() -> None:
    async def main() -> None:
        world = World(replace(BACKING_OFF, reopens_at=1.25))
        ends = [await world.turn() for _ in range(2)]
        assert (ends, world.claims) == ([1.0, 1.25], [])
        await world.turn()
        assert len(world.claims) == 1
        world.breaker = world.breaker.with_pause(paused=True)
        assert await world.turn() == 2.25
        assert world.beats[-1] == 1.25
        assert len(world.claims) == 1

    run_in_virtual_time(main())


def test_a_change_ends_the_wait_of_one_turn() -> None:
    async def main() -> None:
        world = World(fresh().with_pause(paused=True))
        after(0.25, world.loop.wake)
        assert [await world.turn() for _ in range(2)] == [0.25, 1.25]
        assert world.beats == [0.0, 0.25]

    run_in_virtual_time(main())


def test_a_change_aborts_a_claim_that_waits_for_rows() -> None:
    async def main() -> None:
        world = World()
        world.seconds = None
        after(5000.0, world.loop.wake)
        assert await world.turn() == 5000.0
        assert (world.begun, world.nothing_due_at) == ([], [])

    run_in_virtual_time(main())


def test_changes_while_a_claim_is_being_aborted_and_after_it_do_no_harm() -> None:
    async def main() -> None:
        world = World()
        world.seconds, world.close_seconds = None, 3.0
        turn = asyncio.create_task(world.turn())
        for _ in range(2):
            await asyncio.sleep(2.0)
            world.loop.wake()
        await asyncio.sleep(0.5)
        world.loop.wake()
        assert await turn == 5.0
        world.loop.wake()
        world.seconds = 0.0
        await world.turn()
        world.loop.wake()
        assert len(world.begun) == 1

    run_in_virtual_time(main())


@pytest.mark.parametrize(("breaker", "seconds"), [(RECOVERING, 1.0), (BACKING_OFF, 6.0)])
def test_a_claim_that_finds_nothing_in_trouble_says_so(breaker: Breaker, seconds: float) -> None:
    async def main() -> None:
        world = World(breaker)
        world.seconds = None
        world.loop.wake()
        assert await world.turn() == seconds
        assert (world.nothing_due_at, world.begun) == ([seconds], [])
        after(0.5, world.loop.wake)
        assert await world.turn() == seconds + 0.5
        assert len(world.nothing_due_at) == 1

    run_in_virtual_time(main())


def test_a_store_that_is_away_is_asked_four_times_a_second() -> None:
    async def main() -> None:
        world = World()
        world.fault = OutboxUnavailableError("no disk")
        with structlog.testing.capture_logs() as told:
            assert [await world.turn() for _ in range(2)] == [0.25, 0.5]
        failed = {"event": "claim_failed", "log_level": "warning", "reason": "no disk"}
        assert (told, world.begun) == ([failed] * 2, [])
        world.fault = None
        assert await world.turn() == 0.5
        assert len(world.begun) == 1

    run_in_virtual_time(main())


@pytest.mark.parametrize("fault", [TimeoutError(), RuntimeError()])
def test_other_faults_end_the_loop(fault: Exception) -> None:
    async def main() -> None:
        world = World()
        world.fault = fault
        with pytest.raises(type(fault)):
            await world.turn()
        await asyncio.sleep(10)
        assert world.beats == [0.0, 0.0]

    run_in_virtual_time(main())


def test_a_claim_beats_every_second_until_it_ends() -> None:
    async def main() -> None:
        world = World()
        world.seconds = 2.5
        assert await world.turn() == 2.5
        await asyncio.sleep(10)
        assert world.beats == [0.0, 0.0, 1.0, 2.0]

    run_in_virtual_time(main())


def test_the_batch_after_one_that_was_not_full_has_ten_milliseconds_to_fill() -> None:
    async def main() -> None:
        world = World()
        world.seconds = 0.125
        for events, began in [(499, 0.0), (500, 0.135), (1, 0.26), (1, 0.395)]:
            world.rows = batch(events)
            await world.turn()
            assert world.claims[-1][0] == pytest.approx(began)
        await asyncio.sleep(5)
        await world.turn()
        assert world.claims[-1][0] == pytest.approx(5.52)

    run_in_virtual_time(main())
