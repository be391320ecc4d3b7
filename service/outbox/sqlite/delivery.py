"""The delivery record of an SQLite outbox: one row, and its copy in memory."""

from __future__ import annotations

import sqlite3

from service.outbox.clock import wall_now_ms
from service.outbox.model import DeliveryRecord
from service.outbox.sqlite.inspector import DELIVERY, delivery_record
from service.outbox.sqlite.jobs import JobRunner
from service.outbox.sqlite.memory import Memory
from service.outbox.sqlite.notes import write_audit

SAVE_DELIVERY = """
UPDATE outbox_delivery SET state = :state, reason = :reason, batch_window = :window,
       failures = :failures, reopens_at_ms = :reopens_at_ms, since_ms = :since_ms, rate = :rate,
       revision = revision + 1, destination = :destination, confirmation = :confirmation
"""
SET_PAUSED = """
UPDATE outbox_delivery SET paused_by = :paused_by, pause_reason = :reason, revision = revision + 1,
       reopens_at_ms = iif(:ask_now, 0, reopens_at_ms)
"""


class SqliteDelivery:
    """Loads and saves the record. Only the process that holds the outbox writes it."""

    def __init__(self, jobs: JobRunner, memory: Memory) -> None:
        self._jobs = jobs
        self._memory = memory

    async def load(self) -> DeliveryRecord:
        """The record as last saved. Raises OutboxUnavailableError before the file was read."""
        return self._memory.known_record()

    async def save(self, record: DeliveryRecord) -> DeliveryRecord:
        """Save the breaker's fields and keep `paused_by`; returns the stored record."""

        def run(connection: sqlite3.Connection) -> DeliveryRecord:
            values = {
                "state": record.state,
                "reason": record.reason,
                "window": record.window,
                "failures": record.failures,
                "reopens_at_ms": wall_now_ms() + int(record.reopens_in_seconds * 1000),
                "since_ms": record.since_ms,
                "rate": record.rate,
                "destination": record.destination,
                "confirmation": record.confirmation,
            }
            connection.execute(SAVE_DELIVERY, values)
            return read_delivery(connection)

        return await self._jobs.run(run, self._remember)

    async def set_paused(
        self, *, paused: bool, actor: str, ask_now: bool = False, reason: str = ""
    ) -> DeliveryRecord:
        """Pause or resume delivery, and with `ask_now` end a wait; returns the stored record."""

        def run(connection: sqlite3.Connection) -> DeliveryRecord:
            values = {"paused_by": actor if paused else None, "ask_now": ask_now}
            values["reason"] = reason if paused else ""
            connection.execute(SET_PAUSED, values)
            write_audit(connection, actor, "pause" if paused else "resume", reason)
            return read_delivery(connection)

        return await self._jobs.run(run, self._remember)

    def _remember(self, record: DeliveryRecord) -> None:
        self._memory.record = record


def read_delivery(connection: sqlite3.Connection) -> DeliveryRecord:
    """The record as it stands in the file."""
    [row] = connection.execute(DELIVERY).fetchall()
    return delivery_record(row, wall_now_ms())
