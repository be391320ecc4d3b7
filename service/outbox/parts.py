"""The parts that a store hands out to requests, in its own process or in another."""

from __future__ import annotations

from typing import Protocol

from service.identity.scopes import Scopes
from service.outbox.operator_ports import AuditTrail, Positions, Samples
from service.outbox.ports import Inspector, Intake, Repairs


class ServedParts(Protocol):
    """The parts that requests need."""

    @property
    def intake(self) -> Intake:
        """Where requests put events."""
        ...

    @property
    def inspector(self) -> Inspector:
        """What a person may ask."""
        ...

    @property
    def repairs(self) -> Repairs:
        """What a person may change."""
        ...

    @property
    def settings(self) -> Scopes:
        """The stored application settings and session revisions."""
        ...

    @property
    def positions(self) -> Positions:
        """Positions among the rows."""
        ...

    @property
    def samples(self) -> Samples:
        """The outbox's history."""
        ...

    @property
    def trail(self) -> AuditTrail:
        """Acts of operators that change no row."""
        ...
