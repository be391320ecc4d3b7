"""Whether an SQLite outbox takes events now, and why not."""

from __future__ import annotations

from collections.abc import Callable

from service.errors import OutboxUnavailableError
from service.outbox.sqlite.damage import SENTENCE, Damage
from service.outbox.sqlite.disk import Disk
from service.outbox.sqlite.lock import WriterLock
from service.outbox.sqlite.writer import SqliteWriter

_DISK_SHORT = "The disk of the outbox is nearly full."
_CHECK_SECONDS = 1.0
_FINE_SECONDS = 0.05


class SqliteHealth:
    """Asks the writer, the disk, the lock and the damage. `clock` is in seconds."""

    def __init__(
        self,
        writer: SqliteWriter,
        disk: Disk,
        lock: WriterLock,
        damage: Damage,
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._writer = writer
        self._watchdog = writer.watchdog
        self._fine_until = 0.0
        self._disk = disk
        self._lock = lock
        self._damage = damage
        self._lock_fault: str | None = None
        self._checked_at = float("-inf")

    @property
    def failure(self) -> str | None:
        """Why events can't be stored now, None while they can."""
        if not self._writer.alive:
            return "The outbox's writer has ended."
        return self._refusal()

    def refuse_if_failing(self) -> None:
        """Raise OutboxUnavailableError while events can't be stored.

        The disk and the lock are not asked again within 50 ms.
        """
        now = self._clock()
        if now < self._fine_until and not (self._watchdog.failure or self._damage.is_found):
            return
        if refusal := self._refusal():
            raise OutboxUnavailableError(refusal)
        self._fine_until = now + _FINE_SECONDS

    def _refusal(self) -> str | None:
        if failure := self._watchdog.failure:
            return str(failure)
        if self._damage.is_found:
            return SENTENCE
        if fault := self._lock_is_lost():
            return fault
        return _DISK_SHORT if self._disk.is_short() else None

    def _lock_is_lost(self) -> str | None:
        """Whether the lock is lost; the answer is up to a second old."""
        now = self._clock()
        if self._lock_fault is None and now - self._checked_at >= _CHECK_SECONDS:
            self._checked_at = now
            self._lock_fault = self._lock.fault
        return self._lock_fault
