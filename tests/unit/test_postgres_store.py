"""In which order a store on PostgreSQL opens its parts, and what it tells of a fault."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Self

import psycopg
import pytest

from service.errors import OutboxUnavailableError
from service.observe.recorder import NullRecorder
from service.outbox.limits import Limits
from service.outbox.postgres import store as module
from service.outbox.postgres.store import PostgresOutbox
from service.outbox.postgres.timings import PoolTimings

URL = "postgresql://ada:secret@there/outbox"
PARTS = (
    *("pool", "wakeup", "settings", "confirmations", "_quota"),
    *("_maintenance", "queue", "intake"),
)


class Part:
    """Notes when it is opened and closed."""

    def __init__(self, name: str, steps: list[str]) -> None:
        self._name = name
        self._steps = steps

    async def __aenter__(self) -> Self:
        self._steps.append(f"{self._name} in")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._steps.append(f"{self._name} out")


def made(**given: Any) -> PostgresOutbox:
    return PostgresOutbox(URL, Limits(1, 1), NullRecorder(), **given)


def noted(outbox: PostgresOutbox) -> list[str]:
    """The steps of its parts, which only note them from now on."""
    steps: list[str] = []
    for name in PARTS:
        setattr(outbox, name, Part(name, steps))
    return steps


async def test_a_service_opens_all_parts_and_closes_them_in_reverse() -> None:
    outbox = made()
    steps = noted(outbox)
    async with outbox.opened() as opened:
        assert opened is outbox
        assert steps == [f"{name} in" for name in PARTS]
    assert steps[len(PARTS) :] == [f"{name} out" for name in reversed(PARTS)]


async def test_a_command_opens_nothing_that_claims() -> None:
    outbox = made()
    steps = noted(outbox)
    async with outbox.opened_for_commands() as opened:
        assert opened is outbox
        assert steps == ["pool in", "wakeup in", "confirmations in"]
    assert steps[3:] == ["confirmations out", "wakeup out", "pool out"]


async def test_a_pool_has_the_times_that_are_given() -> None:
    timings = PoolTimings(1.0, 2.0, 3.0)
    assert made(timings=timings).pool.timings is timings
    assert made().pool.timings == PoolTimings()


async def test_a_failure_is_that_of_the_database_or_of_the_tasks() -> None:
    outbox: Any = made()
    assert outbox.failure is None
    outbox._supervisor = SimpleNamespace(faults=["one is down", "another hangs"])
    assert outbox.failure == "one is down; another hangs"
    outbox.pool._availability.failure = "The disk is full."
    assert outbox.failure == "The disk is full."


async def test_a_store_tells_what_its_parts_know() -> None:
    outbox: Any = made()
    assert outbox.notify_ok is False
    outbox.wakeup.notify_ok = True
    outbox._quota = SimpleNamespace(pending=5)
    assert (outbox.notify_ok, outbox.undelivered) == (True, 5)


@pytest.mark.parametrize(
    ("cause", "failure", "told"),
    [
        (
            psycopg.OperationalError("host is down"),
            "why",
            "PostgreSQL at there:5432, database outbox, can't be used: host is down.",
        ),
        (
            ValueError("x"),
            "The disk is full.",
            "PostgreSQL at there:5432, database outbox: The disk is full.",
        ),
        (None, "Why.", "PostgreSQL at there:5432, database outbox: Why."),
        (ValueError("x"), None, "as it was"),
    ],
)
def test_a_command_is_told_which_server_has_the_fault(
    cause: Exception | None, failure: str | None, told: str
) -> None:
    outbox: Any = SimpleNamespace(failure=failure)
    error = OutboxUnavailableError("as it was")
    error.__cause__ = cause
    with pytest.raises(OutboxUnavailableError) as caught, module._fault_named(URL, outbox):
        raise error
    assert str(caught.value) == told
    assert caught.value is error or caught.value.__cause__ is error


def test_other_errors_of_a_command_stay_as_they_are() -> None:
    outbox: Any = SimpleNamespace(failure="why")
    with pytest.raises(KeyError), module._fault_named(URL, outbox):
        raise KeyError
    with module._fault_named(URL, outbox):
        pass
