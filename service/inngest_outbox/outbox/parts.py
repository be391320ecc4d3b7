"""The parts that a store hands out to requests, in its own process or in another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from inngest_outbox.identity.scopes import Scopes
from inngest_outbox.outbox.event import Event
from inngest_outbox.outbox.keys import IdempotencyKey, Receipt
from inngest_outbox.outbox.ports import AuditTrail, Inspector, Intake, Positions, Repairs, Samples


class ReadParts(Protocol):
    """The parts that a person reads."""

    @property
    def inspector(self) -> Inspector:
        """The questions of a person."""
        ...

    @property
    def positions(self) -> Positions:
        """Positions among the rows."""
        ...


class WebOutbox(ReadParts, Protocol):
    """The parts that requests need."""

    @property
    def intake(self) -> Intake:
        """Where requests put events."""
        ...

    @property
    def repairs(self) -> Repairs:
        """The changes of a person."""
        ...

    @property
    def scopes(self) -> Scopes:
        """Small stored values: application settings, session revisions, records of watches."""
        ...

    @property
    def samples(self) -> Samples:
        """The outbox's history."""
        ...

    @property
    def trail(self) -> AuditTrail:
        """Acts of operators that change no row."""
        ...


class StoreIntake(Intake, Protocol):
    """The Intake of the process that owns the store."""

    def start(
        self, events: Sequence[Event], keys: Sequence[IdempotencyKey | None]
    ) -> asyncio.Future[Sequence[Receipt]]:
        """Begin what `append_all` does; the future gets what that returns or raises.

        Cancelling the future does not take the events back.
        """
        ...


class StoreParts(WebOutbox, Protocol):
    """The parts in the process that owns the store."""

    @property
    def failure(self) -> str | None:
        """Why events can't be stored now, None while they can."""
        ...

    @property
    def undelivered(self) -> int:
        """The number of rows that are pending or delivering, lately; reading it costs nothing."""
        ...

    @property
    def intake(self) -> StoreIntake:
        """Where requests put events."""
        ...
