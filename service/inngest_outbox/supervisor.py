"""Background tasks that can't die or hang unseen.

A `Supervisor` runs named tasks. A task that ends without being stopped is logged with its
traceback, counted, and started again with backoff. Of an outbox that can't be used for a moment the
log has the reason alone. A task whose `beat` is late counts as hung. `/readyz` shows `faults`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import structlog

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.observe.recorder import Recorder

_FIRST_RESTART_SECONDS = 0.1
_MAX_RESTART_SECONDS = 5.0
_CANCEL_AGAIN_SECONDS = 1.0
_HEALTHY_SECONDS = 10.0
_FAILING = 3

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Watched:
    name: str
    run: Callable[[], Awaitable[object]]
    hung_after_seconds: float | None
    beat_at: float
    began_at: float
    down: bool = False
    failures: int = 0


class Supervisor:
    """Runs tasks until it is closed; restarts a task that ends."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._watched: dict[str, _Watched] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def watch(
        self,
        name: str,
        run: Callable[[], Awaitable[object]],
        *,
        hung_after_seconds: float | None = None,
    ) -> None:
        """Start `run` as a task called `name`.

        With `hung_after_seconds`, the task must call `beat(name)` more often than that. None means
        that it can't be seen to hang.
        """
        now = time.monotonic()
        watched = _Watched(name, run, hung_after_seconds, beat_at=now, began_at=now)
        self._watched[name] = watched
        self._tasks[name] = asyncio.create_task(self._keep(watched), name=name)

    def beat(self, name: str) -> None:
        """Note that `name` is alive."""
        if watched := self._watched.get(name):
            watched.beat_at = time.monotonic()

    @property
    def faults(self) -> list[str]:
        """One sentence for each task that is down, failing or hung."""
        now = time.monotonic()
        found = (_fault(task, now) for task in self._watched.values())
        return [sentence for sentence in found if sentence]

    async def stop(self, name: str) -> None:
        """Stop one task; it is not restarted. Safe to repeat."""
        self._watched.pop(name, None)
        task = self._tasks.pop(name, None)
        if task:
            await end(task)

    async def close(self) -> None:
        """Stop all tasks, the last started first."""
        for name in reversed(list(self._tasks)):
            await self.stop(name)

    async def _keep(self, watched: _Watched) -> None:
        while True:
            watched.began_at = watched.beat_at = time.monotonic()
            watched.down = False
            try:
                await watched.run()
                log.error("task_ended", task=watched.name)
            except asyncio.CancelledError:
                if _is_being_cancelled():
                    raise
                log.exception("task_failed", task=watched.name)
            except OutboxUnavailableError as error:
                log.warning("task_failed", task=watched.name, reason=str(error))
            except Exception:
                log.exception("task_failed", task=watched.name)
            watched.down = True
            healthy = time.monotonic() - watched.began_at > _HEALTHY_SECONDS
            watched.failures = 1 if healthy else watched.failures + 1
            self._recorder.count("task_restarts", task=watched.name)
            delay = _FIRST_RESTART_SECONDS * 2.0 ** min(watched.failures - 1, 10)
            await asyncio.sleep(min(delay, _MAX_RESTART_SECONDS))


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel `task` until it has ended.

    One cancellation may not be enough. Before Python 3.12 `asyncio.wait_for`, which psycopg's pool
    uses, loses a cancellation that arrives in the same turn of the loop as its result.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_CANCEL_AGAIN_SECONDS)


def _fault(task: _Watched, now: float) -> str | None:
    if task.down:
        return f"{task.name} has ended and is being restarted"
    if task.failures >= _FAILING and now - task.began_at < _HEALTHY_SECONDS:
        return f"{task.name} keeps failing"
    if task.hung_after_seconds and now - task.beat_at > task.hung_after_seconds:
        return f"{task.name} does not answer"
    return None


def _is_being_cancelled() -> bool:
    """True when this task itself is being cancelled, not only something that it awaited."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@contextlib.asynccontextmanager
async def run_supervisor(recorder: Recorder) -> AsyncIterator[Supervisor]:
    """A supervisor whose tasks end with the context."""
    supervisor = Supervisor(recorder)
    try:
        yield supervisor
    finally:
        await supervisor.close()
