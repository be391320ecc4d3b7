"""An event loop whose clock jumps to the next timer, for simulations of hours in milliseconds.

Only for coroutines that wait on timers and on each other: nothing here waits for a socket.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec

_MOST_SECONDS = 10_000.0
_LEAST_SECONDS = 1e-6
P = ParamSpec("P")


class _Jump(selectors.SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("every coroutine waits for another: nothing can ever happen")
        self.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """As a loop's. A wait too short to be added to the time would leave the clock as it is."""
        least = _LEAST_SECONDS if delay > 0 else 0.0
        return super().call_later(max(delay, least), callback, *args, context=context)


def now() -> float:
    """The seconds of the loop that runs."""
    return asyncio.get_running_loop().time()


def run_in_virtual_time(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main)


def in_virtual_time(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """A test that runs on a virtual loop, for at most some hours of its time."""

    async def bounded(*args: P.args, **kwargs: P.kwargs) -> None:
        async with asyncio.timeout(_MOST_SECONDS):
            await test(*args, **kwargs)

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        run_in_virtual_time(bounded(*args, **kwargs))

    return run
