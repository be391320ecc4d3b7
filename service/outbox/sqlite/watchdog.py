"""The watchdog: whether the outbox can be written, and an error for callers of a disk that hangs.

The invariant: no caller waits for the disk longer than `stall_seconds`, and a failure is logged
once when it begins and once when it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import structlog

from service.errors import OutboxUnavailableError
from service.observe.recorder import Recorder
from service.outbox.sqlite.damage import Damage
from service.outbox.sqlite.faults import FaultScope, scope_of
from service.outbox.sqlite.timings import WriterTimings
from service.outbox.sqlite.work import Group, WorkKind

_STALLED = "The outbox's disk does not answer."

log = structlog.get_logger(__name__)


class Watchdog:
    """Watches the calls to the disk; `on_stall` is called repeatedly while one hangs."""

    def __init__(
        self,
        timings: WriterTimings,
        recorder: Recorder,
        damage: Damage,
        on_stall: Callable[[OutboxUnavailableError], None],
    ) -> None:
        self._timings = timings
        self._recorder = recorder
        self._damage = damage
        self._on_stall = on_stall
        self._loop = asyncio.get_running_loop()
        self._failed_kind: WorkKind[Any, Any] | None = None
        self._probe_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.failure: OutboxUnavailableError | None = None
        self.group: Group = {}

    @property
    def wants_probe(self) -> bool:
        """Whether the outbox can't be written and it is time to try again."""
        return self.failure is not None and self._loop.time() >= self._probe_at

    @contextlib.contextmanager
    def watching(self, group: Group) -> Iterator[None]:
        """While inside, submitters of `group` get an error after `stall_seconds`."""
        self.group = group
        self._arm()
        try:
            yield
        finally:
            if self._timer:
                self._timer.cancel()
            self.group = {}

    def failed(self, error: Exception, group: Group) -> bool:
        """A commit of `group` failed and can't be made smaller.

        Returns whether every other fails too.
        """
        self._damage.note(error)
        scope = scope_of(error)
        if not isinstance(error, OutboxUnavailableError) or scope is FaultScope.ITEM:
            return False
        self._begin(error)
        self._failed_kind = next(iter(group), None) if scope is FaultScope.KIND else None
        return scope is FaultScope.STORE

    def passed(self, group: Group) -> None:
        """A commit of `group` passed: the store and the kinds in it work again."""
        if self._failed_kind is None or self._failed_kind in group:
            self._end()

    def probed(self, error: OutboxUnavailableError | None) -> None:
        """A probe ended, with `error` when the outbox still can't be written."""
        self._probe_at = self._loop.time() + self._timings.probe_seconds
        if error is None:
            self._end()
        else:
            self._begin(error)

    def _arm(self) -> None:
        self._timer = self._loop.call_later(self._timings.stall_seconds, self._stalled)

    def _stalled(self) -> None:
        self._arm()
        error = OutboxUnavailableError(_STALLED)
        self._begin(error)
        for waiting in self.group.values():
            waiting.fail(error)
        self._on_stall(error)

    def _begin(self, error: OutboxUnavailableError) -> None:
        if self.failure is None or str(self.failure) != str(error):
            self._recorder.count("write_failures")
            log.error("not_writable", reason=str(error))
        self.failure = error

    def _end(self) -> None:
        if self.failure:
            log.warning("writable_again")
        self.failure = self._failed_kind = None
