"""What the web part of a service needs of the store, in its own process or in another one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from service.outbox.parts import ServedParts


class WebOutbox(ServedParts, Protocol):
    """The parts of a store that requests need, and how it is."""

    @property
    def failure(self) -> str | None:
        """Why events can't be stored now, None while they can."""
        ...

    @property
    def undelivered(self) -> int:
        """How many rows are pending or delivering, lately; reading it costs nothing."""
        ...


@dataclass(frozen=True, slots=True)
class StoreReadiness:
    """`faults` returns why events can't be stored or delivered, `detail` the figures."""

    faults: Callable[[], list[str]]
    detail: Callable[[], Mapping[str, object]]


def store_faults(outbox: WebOutbox) -> list[str]:
    """Why events can't be stored now; empty while they can."""
    return [outbox.failure] if outbox.failure else []
