"""How long callers wait for the database, as one policy that tests and the store inject."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PoolTimings:
    """The longest waits, in seconds.

    A statement waits `connection_seconds` for a connection that is free. It has an answer within
    `statement_seconds`, unless its caller names another time; one that a person asks for, within
    `ask_seconds`.
    """

    connection_seconds: float = 1.0
    statement_seconds: float = 2.0
    ask_seconds: float = 10.0
