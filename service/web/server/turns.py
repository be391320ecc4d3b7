"""Shares the event loop among requests: each turn of the loop starts a few, the others wait.

Without it a thousand connections start a thousand requests in one turn, and everything else waits
until all of them have run. A client that sends requests before it has the answers to earlier ones
is pipelining. Its requests wait behind those of other clients.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

_Waiting = deque[asyncio.Future[None]]


@dataclass(frozen=True, slots=True)
class TurnPolicy:
    """How many requests a turn of the event loop starts.

    The number adapts between `least` and `most`, so that a turn takes about `seconds` of CPU. One
    in `pipelined_share` of the requests that waited is a pipelined one.
    """

    seconds: float = 0.01
    least: int = 8
    most: int = 256
    pipelined_share: int = 4


class Turns:
    """Lets requests start, a few in each turn of the running event loop."""

    def __init__(
        self, policy: TurnPolicy | None = None, clock: Callable[[], float] = time.thread_time
    ) -> None:
        self._policy = policy or TurnPolicy()
        self._clock = clock
        self._size = self._room = self._policy.most
        self._waiting: _Waiting = deque()
        self._pipelined: _Waiting = deque()
        self._is_turn = False

    async def start(self, *, is_pipelined: bool) -> None:
        """Return at once while this turn has room, else in a later turn."""
        self._end_turn_soon()
        if self._room > 0:  # then nobody waits
            self._room -= 1
            return
        waiter = asyncio.get_running_loop().create_future()
        (self._pipelined if is_pipelined else self._waiting).append(waiter)
        await waiter

    def _end_turn_soon(self) -> None:
        if not self._is_turn:
            self._is_turn = True
            asyncio.get_running_loop().call_soon(self._end_turn, self._clock())

    def _end_turn(self, began: float) -> None:
        self._is_turn = False
        self._adapt(self._clock() - began)
        self._room = self._size
        while self._room > 0 and (self._waiting or self._pipelined):
            waiter = self._next().popleft()
            if not waiter.done():
                waiter.set_result(None)
                self._room -= 1
        if self._room < self._size:
            self._end_turn_soon()

    def _adapt(self, took_seconds: float) -> None:
        policy = self._policy
        if took_seconds > policy.seconds:
            self._size = max(policy.least, self._size // 2)
        elif not self._room:
            self._size = min(policy.most, self._size + policy.least)

    def _next(self) -> _Waiting:
        is_pipelined_turn = self._room % self._policy.pipelined_share == 0
        if self._pipelined and (is_pipelined_turn or not self._waiting):
            return self._pipelined
        return self._waiting
