"""One process of an outbox has the turn; another takes it when that one is gone."""

from __future__ import annotations

import pytest

from inngest_outbox.runs.turn import Turn
from tests.support.memory_scopes import MemoryScopes


class Clock:
    """A clock that is `seconds` after its start, and the turns of processes that look at it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def turn(self, scopes: MemoryScopes) -> Turn:
        return Turn(scopes, alone=False, clock=lambda: self.seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def after(clock: Clock, seconds: int, *turns: Turn) -> list[bool]:
    """Who has the turn after so long, when each has looked every five seconds."""
    found: list[bool] = []
    for _ in range(seconds // 5):
        clock.seconds += 5
        found = [await one.mine() for one in turns]
    return found


async def test_one_process_has_the_turn_until_it_is_gone(clock: Clock) -> None:
    scopes = MemoryScopes()
    first, second = clock.turn(scopes), clock.turn(scopes)
    assert await after(clock, 600, first, second) == [True, False]
    assert await after(clock, 90, second) == [False]  # since the first renewed it
    assert await after(clock, 5, second) == [True]
    assert await after(clock, 600, first, second) == [False, True]
    scopes.is_away = True  # meanwhile nothing changes hands
    assert await after(clock, 600, first, second) == [False, True]


@pytest.mark.parametrize("at", [0, 1_900_000_000_000])  # by another clock
async def test_a_turn_that_is_found_ends_after_ninety_seconds(clock: Clock, at: int) -> None:
    scopes = MemoryScopes()
    scopes.stored["watch", "turn"] = {"by": "gone", "at": at}
    turn = clock.turn(scopes)
    assert await after(clock, 90, turn) == [False]
    assert scopes.stored["watch", "turn"]["by"] == "gone"
    assert await after(clock, 5, turn) == [False]  # another may have taken it, too
    assert await after(clock, 5, turn) == [True]


async def test_a_process_that_is_alone_needs_no_store() -> None:
    scopes = MemoryScopes()
    scopes.is_away = True
    assert not await Turn(scopes, alone=False).mine()
    assert await Turn(scopes, alone=True).mine()
    scopes.is_away = False
    assert await after(Clock(), 60, Turn(scopes, alone=True)) == [True]
    assert scopes.loads == 1  # by the first


@pytest.mark.parametrize("is_away", [False, True])
async def test_the_store_is_asked_every_five_seconds(clock: Clock, *, is_away: bool) -> None:
    scopes = MemoryScopes()
    scopes.is_away = is_away
    turn = clock.turn(scopes)
    for _ in range(60):
        clock.seconds += 1
        await turn.mine()
    assert scopes.loads == 12


async def test_a_turn_that_no_process_had_is_taken_at_once(clock: Clock) -> None:
    turn = clock.turn(MemoryScopes())
    assert await after(clock, 5, turn) == [False]  # another may have taken it, too
    assert await after(clock, 5, turn) == [True]
