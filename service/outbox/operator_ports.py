"""The ports of an outbox for looks among many rows, and for the operators' pages."""

from __future__ import annotations

from typing import Protocol

from service.outbox.model import State
from service.outbox.reach import Reach
from service.outbox.sample import Sample


class Positions(Protocol):
    """Positions among the rows. No look reads many of them."""

    async def reach(
        self,
        state: State | None,
        window: int,
        before_seq: int | None = None,
        owner: str | None = None,
    ) -> Reach | None:
        """The last of the newest `window` rows in this state, below `before_seq` if given.

        None when there are fewer. With `owner`, which goes with no state, only this owner's rows
        count. A store may end a look earlier, at a number that is of no such row, where it would go
        through too much that is in no state or in another one.
        """
        ...

    async def seq_at(self, at_ms: int) -> int:
        """The `seq` below which rows were accepted before `at_ms`.

        It is found by halving, so a clock that was set makes it inexact.
        """
        ...


class AuditTrail(Protocol):
    """Where acts of operators that change no row are kept."""

    async def record(self, action: str, *, actor: str, event_id: str, detail: str) -> None:
        """Add an act about one event to the audit. Raises OutboxUnavailableError."""
        ...


class Samples(Protocol):
    """The outbox's history: a sample for each minute of the last 7 days."""

    async def add(self, sample: Sample) -> None:
        """Keep a sample unless its minute has one, and drop those of more than 7 days before.

        Safe to repeat. Raises OutboxUnavailableError.
        """
        ...

    async def between(self, from_ms: int, until_ms: int) -> list[Sample]:
        """The samples of minutes that begin within these moments, oldest first."""
        ...
