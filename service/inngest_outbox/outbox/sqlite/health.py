"""The health of an SQLite outbox: whether it can be written, and an error for callers who wait.

The invariant: no caller waits for the disk longer than `stall_seconds`, and a failure is logged
once when it begins and once when it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

import structlog

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.observe.recorder import Recorder
from inngest_outbox.outbox.sqlite.commit import Group
from inngest_outbox.outbox.sqlite.file.disk import Disk
from inngest_outbox.outbox.sqlite.file.faults import Corruption, FaultScope, scope_of
from inngest_outbox.outbox.sqlite.file.journalled import Journal
from inngest_outbox.outbox.sqlite.file.lock import WriterLock
from inngest_outbox.outbox.sqlite.timings import WriterTimings

_STALLED = "The outbox's disk does not answer."
_DISK_SHORT = "The disk of the outbox is nearly full."
_CHECK_SECONDS = 1.0
_FINE_SECONDS = 0.05

log = structlog.get_logger(__name__)


class Watchdog:
    """Watches the calls to the disk; `on_stall` is called repeatedly while one hangs."""

    def __init__(
        self,
        timings: WriterTimings,
        recorder: Recorder,
        corruption: Corruption,
        on_stall: Callable[[OutboxUnavailableError], None],
    ) -> None:
        self._timings = timings
        self._recorder = recorder
        self._corruption = corruption
        self._on_stall = on_stall
        self._loop = asyncio.get_running_loop()
        self._only_a_probe_ends_it = False
        self._probe_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.failure: OutboxUnavailableError | None = None
        self.group: Group | None = None

    @property
    def wants_probe(self) -> bool:
        """True if the outbox can't be written and it is time to try again."""
        return self.failure is not None and self._loop.time() >= self._probe_at

    @contextlib.contextmanager
    def watching(self, group: Group | None = None) -> Iterator[None]:
        """While inside, submitters of `group` get an error after `stall_seconds`."""
        self.group = group
        self._arm()
        try:
            yield
        finally:
            if self._timer:
                self._timer.cancel()
            self.group = None

    def failed(self, error: Exception) -> bool:
        """A commit failed and can't be made smaller; returns whether every other fails too."""
        self._corruption.note(error)
        scope = scope_of(error)
        if not isinstance(error, OutboxUnavailableError) or scope is FaultScope.ITEM:
            return False
        self._begin(error)
        self._only_a_probe_ends_it = scope is FaultScope.KIND
        return scope is FaultScope.STORE

    def passed(self) -> None:
        """A commit passed; where one kind of work failed, another kind proves nothing."""
        if self.failure and not self._only_a_probe_ends_it:
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
        if self.group is not None:
            self.group.fail(error)
        self._on_stall(error)

    def _begin(self, error: OutboxUnavailableError) -> None:
        if self.failure is None or str(self.failure) != str(error):
            self._recorder.count("write_failures")
            log.error("not_writable", reason=str(error))
        self.failure = error

    def _end(self) -> None:
        if self.failure:
            log.warning("writable_again")
        self.failure, self._only_a_probe_ends_it = None, False


class SqliteHealth:
    """Asks the watchdog, the disk, the lock and the file's damage. `clock` is in seconds.

    `is_alive` says whether the writer runs.
    """

    def __init__(
        self,
        watchdog: Watchdog,
        is_alive: Callable[[], bool],
        disk: Disk,
        lock: WriterLock,
        corruption: Corruption,
        clock: Callable[[], float],
        *,
        journal: Journal | None = None,
    ) -> None:
        self._clock = clock
        self._journal = journal
        self._watchdog = watchdog
        self._is_alive = is_alive
        self._fine_until = 0.0
        self._disk = disk
        self._lock = lock
        self._corruption = corruption
        self._lock_fault: str | None = None
        self._checked_at = float("-inf")

    @property
    def failure(self) -> str | None:
        """Why events can't be stored now, None while they can."""
        if not self._is_alive():
            return "The outbox's writer has ended."
        if fault := self._corruption.fault:
            return fault
        if failure := self._watchdog.failure:
            return str(failure)
        if fault := self._fault_of_lock():
            return fault
        return _DISK_SHORT if self._disk.is_short() else self._journal_refusal()

    def _journal_refusal(self) -> str | None:
        try:
            if self._journal:
                self._journal.wait_seconds()
        except OutboxUnavailableError as error:
            return str(error)
        return None

    def refuse_if_failing(self) -> None:
        """Raise OutboxUnavailableError while events can't be stored.

        Nothing is asked again within 50 ms; the commit itself fails then.
        """
        now = self._clock()
        if now < self._fine_until:
            return
        if failure := self.failure:
            raise OutboxUnavailableError(failure)
        self._fine_until = now + _FINE_SECONDS

    def _fault_of_lock(self) -> str | None:
        """The reason why the lock is lost, None while it is kept; up to a second old."""
        now = self._clock()
        if self._lock_fault is None and now - self._checked_at >= _CHECK_SECONDS:
            self._checked_at = now
            self._lock_fault = self._lock.fault
        return self._lock_fault
