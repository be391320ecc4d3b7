"""Admits work: some of it runs in each turn of the event loop, and so many posts run at once.

Without turns a thousand connections start a thousand requests in one turn, and everything else
waits until all of them have run. A client that sends requests before it has the answers to earlier
ones is pipelining; its requests wait behind those of other clients. Large pieces of what clients
send wait for a turn with time for them, small ones do not. The invariant: one timer serves all
waiting posts, and a post that waited for its time runs without a place.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

_LATE_AT_ONCE = 64
_LATE_EACH_SECONDS = 0.01

_Waiting = deque[asyncio.Future[None]]


@dataclass(frozen=True, slots=True)
class AdmissionPolicy:
    """The number of requests that run.

    A turn of the event loop starts between `least` and `most` requests; the number adapts so that
    a turn takes about `turn_seconds`, large pieces at most about `pieces_seconds` of it. One
    in `pipelined_share` of the requests that waited is a pipelined one. `posts` run at once;
    another one waits `post_wait_seconds`, then runs too, because the running ones may wait for a
    neighbour that hangs.
    """

    turn_seconds: float = 0.01
    pieces_seconds: float = 0.005
    least: int = 8
    most: int = 256
    pipelined_share: int = 4
    posts: int = 256
    post_wait_seconds: float = 1.0


class Admission:
    """The admission of one server."""

    def __init__(
        self,
        policy: AdmissionPolicy,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._size = self._room = self._policy.most
        self._waiting: _Waiting = deque()
        self._pipelined: _Waiting = deque()
        self._pieces: deque[Callable[[], None]] = deque()
        self._began: float | None = None
        self._free_posts = self._policy.posts
        self._waiting_posts: deque[tuple[float, asyncio.Future[bool]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def starts_now(self) -> bool:
        """Take room in this turn; False where it has none, or others wait for it."""
        self._begin_turn()
        if self._room > 0:
            self._room -= 1
            return True
        return False

    async def later_turn(self, *, is_pipelined: bool) -> None:
        """Wait for a later turn, after `starts_now` said no."""
        waiter = asyncio.get_running_loop().create_future()
        (self._pipelined if is_pipelined else self._waiting).append(waiter)
        await waiter

    def parses_now(self, parse: Callable[[], None]) -> bool:
        """True where this turn has time for a large piece; else `parse` is called in a later one.

        Pieces that wait are parsed in their order, each connection's one at a time.
        """
        began = self._begin_turn()
        if self._has_time(began):
            return True
        self._pieces.append(parse)
        return False

    def takes_post(self) -> bool:
        """Take a post's place; False where none is free."""
        if self._free_posts > 0:
            self._free_posts -= 1
            return True
        return False

    async def post_place(self) -> bool:
        """Wait in line for a post's place; False where the wait ended without one."""
        loop = asyncio.get_running_loop()
        taken: asyncio.Future[bool] = loop.create_future()
        self._waiting_posts.append((loop.time() + self._policy.post_wait_seconds, taken))
        self._watch_posts(loop)
        try:
            return await taken
        except asyncio.CancelledError:
            if not taken.cancelled() and taken.result():
                self.end_post()
            raise

    def end_post(self) -> None:
        """Hand a post's place to the next in line."""
        while self._waiting_posts:
            _, taken = self._waiting_posts.popleft()
            if not taken.done():
                taken.set_result(True)
                return
        self._free_posts += 1

    def _begin_turn(self) -> float:
        if self._began is None:
            self._began = self._clock()
            asyncio.get_running_loop().call_soon(self._end_turn, self._began)
        return self._began

    def _has_time(self, began: float) -> bool:
        return self._clock() - began < self._policy.pieces_seconds

    def _end_turn(self, began: float) -> None:
        self._began = None
        self._adapt(self._clock() - began)
        self._room = self._size
        while self._room > 0 and (self._waiting or self._pipelined):
            waiter = self._next().popleft()
            if not waiter.done():
                waiter.set_result(None)
                self._room -= 1
        if self._room < self._size or self._pieces:
            began = self._begin_turn()
            parsed = 0
            while self._pieces and (self._has_time(began) or not parsed):
                self._pieces.popleft()()
                parsed += 1

    def _adapt(self, took_seconds: float) -> None:
        policy = self._policy
        if took_seconds > policy.turn_seconds:
            self._size = max(policy.least, self._size // 2)
        elif not self._room:
            self._size = min(policy.most, self._size + policy.least)

    def _next(self) -> _Waiting:
        is_pipelined_turn = self._room % self._policy.pipelined_share == 0
        if self._pipelined and (is_pipelined_turn or not self._waiting):
            return self._pipelined
        return self._waiting

    def _watch_posts(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is None and self._waiting_posts:
            at = max(self._waiting_posts[0][0], loop.time() + _LATE_EACH_SECONDS)
            self._timer = loop.call_at(at, self._end_waits, loop)

    def _end_waits(self, loop: asyncio.AbstractEventLoop) -> None:
        # Thousands that ran in one turn would hold up everything else, so a few leave at once.
        self._timer = None
        now, late = loop.time(), 0
        while late < _LATE_AT_ONCE and self._waiting_posts and self._waiting_posts[0][0] <= now:
            _, taken = self._waiting_posts.popleft()
            if not taken.done():
                taken.set_result(False)
                late += 1
        self._watch_posts(loop)
