"""One process of an outbox has the turn; another takes it when that one is gone."""

from __future__ import annotations

import pytest

from service.runs import turn
from service.runs.turn import Turn
from tests.support.memory_scopes import MemoryScopes, Tree


class Clock:
    """The wall clock in ms, as `seconds` since a start go by; `ahead_ms` moves it."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.ahead_ms = 0

    def __call__(self) -> int:
        return 1_800_000_000_000 + int(self.seconds * 1000) + self.ahead_ms

    def turn(self, scopes: MemoryScopes) -> Turn:
        return Turn(scopes, alone=False, clock=lambda: self.seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(turn, "wall_now_ms", clock)
    return clock


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
    assert await after(clock, 65, second) == [False]  # 90 s after the first renewed it
    assert await after(clock, 5, second) == [True]
    assert await after(clock, 600, first, second) == [False, True]
    scopes.is_away = True  # meanwhile nothing changes hands
    assert await after(clock, 600, first, second) == [False, True]


async def test_a_turn_ends_in_its_time_though_the_clock_was_set_back(clock: Clock) -> None:
    scopes = MemoryScopes()
    first, second = clock.turn(scopes), clock.turn(scopes)
    assert await after(clock, 60, first, second) == [True, False]
    clock.ahead_ms = -3_600_000
    assert await after(clock, 600, first, second) == [True, False]
    clock.ahead_ms *= 2
    assert await after(clock, 95, second) == [True]


async def test_a_process_that_is_alone_needs_no_store() -> None:
    scopes = MemoryScopes()
    scopes.is_away = True
    assert not await Turn(scopes, alone=False).mine()
    assert await Turn(scopes, alone=True).mine()
    scopes.is_away = False
    assert await after(Clock(), 60, Turn(scopes, alone=True)) == [True]
    assert scopes.loads == 0


async def test_the_store_is_asked_every_five_seconds(clock: Clock) -> None:
    scopes = MemoryScopes()
    turn = clock.turn(scopes)
    for _ in range(60):
        clock.seconds += 1
        await turn.mine()
    assert scopes.loads == 12


@pytest.mark.parametrize("kept", [{}, {"by": "another", "at": "soon"}])
async def test_a_turn_of_which_nothing_is_known_is_taken(clock: Clock, kept: Tree) -> None:
    scopes = MemoryScopes()
    scopes.stored["watch", "turn"] = kept
    turn = clock.turn(scopes)
    assert await after(clock, 5, turn) == [False]  # another may have taken it, too
    assert await after(clock, 5, turn) == [True]
