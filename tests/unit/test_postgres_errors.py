"""Which of PostgreSQL's errors are the outbox's trouble, and what they say."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import psycopg
import psycopg_pool
import pytest

from inngest_outbox.outbox.postgres.database.connection import connection_string
from inngest_outbox.outbox.postgres.database.faults import (
    fault_at,
    is_of_the_database,
    reason,
    said,
    sentence,
)
from inngest_outbox.outbox.postgres.queue import Wakeup
from tests.support.virtual_time import in_virtual_time

FULL = "The disk of the outbox's database is full."
NO_CONNECTION = "The outbox's database has no connection left."
PREFIX = 'connection failed: connection to server at "10.0.0.1", port 5432 failed: '
SLOTS = "remaining connection slots are reserved"


def every_error(of: type[Exception]) -> Iterator[type[Exception]]:
    for each in of.__subclasses__():
        yield each
        yield from every_error(each)


def test_every_error_of_the_driver_has_a_sentence_for_people() -> None:
    for kind in {*every_error(psycopg.Error), psycopg_pool.PoolTimeout}:
        told = sentence(kind("words"))
        assert told.startswith(("The ", "Another session")), kind
        assert "words" not in told, kind


OF_THE_DATABASE = [
    psycopg.errors.DiskFull,
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.AdminShutdown,
    psycopg.errors.CannotConnectNow,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.LockNotAvailable,
    psycopg.errors.TooManyConnections,
    psycopg.InterfaceError,
    psycopg_pool.PoolTimeout,
    TimeoutError,
]
OF_ONE_STATEMENT = [
    psycopg.errors.SyntaxError,
    psycopg.errors.UniqueViolation,
    psycopg.errors.NumericValueOutOfRange,
    psycopg.OperationalError,
    OSError,
    ValueError,
]


@pytest.mark.parametrize("error", [*OF_THE_DATABASE, *OF_ONE_STATEMENT])
def test_an_error_is_of_the_whole_database_or_of_one_statement(error: type[Exception]) -> None:
    assert is_of_the_database(error("words")) is (error in OF_THE_DATABASE)


class ToldFull(psycopg.errors.DiskFull):
    """As the server tells it, with its own words."""

    diag: Any = SimpleNamespace(message_primary="could not extend file")


class ToldOdd(psycopg.errors.SyntaxError):
    diag: Any = SimpleNamespace(message_primary="too many clients")


@pytest.mark.parametrize(
    ("error", "words", "cause", "told"),
    [
        (ToldFull("x"), "could not extend file", "could not extend file (53100)", FULL),
        (ToldOdd("x"), "too many clients", "too many clients (42601)", NO_CONNECTION),
        (psycopg.errors.DiskFull("x"), "", "DiskFull", FULL),
        (psycopg.OperationalError(f"{PREFIX}FATAL:  {SLOTS}"), SLOTS, SLOTS, NO_CONNECTION),
        (OSError("x"), "", "OSError", "The outbox's database does not answer."),
        (TimeoutError(), "", "TimeoutError", "The outbox's database does not answer in time."),
    ],
)
def test_an_error_is_told_by_its_kind_else_by_the_servers_words(
    error: Exception, words: str, cause: str, told: str
) -> None:
    assert (said(error), reason(error), sentence(error)) == (words, cause, told)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ('FATAL:  password authentication failed for user "ada"', "refuses this password"),
        ("FATAL:  sorry, too many clients already", "no connection left"),
        ('FATAL:  database "outbox" does not exist', "does not exist"),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1"', "refuses this user from here"),
        ("Connection refused", "The outbox's database does not answer."),  # it can't be reached
    ],
)
def test_a_refused_connection_names_its_cause_and_no_address(words: str, told: str) -> None:
    error = psycopg.OperationalError(PREFIX + words)
    assert told in sentence(error)
    assert "10.0.0.1" not in sentence(error)
    assert reason(error) == words.removeprefix("FATAL:  ")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("SSL error: certificate verify failed", "certificate"),
        ('server certificate for "db" does not match host name "x"', "certificate"),
        ("session is read-only", "takes no writes"),
        ('FATAL:  password authentication failed for user "ada"', "refuses this password"),
    ],
)
def test_of_several_hosts_the_one_that_answered_is_told(words: str, told: str) -> None:
    error = psycopg.OperationalError(
        "Multiple connection attempts failed. All failures were:\n"
        "- host: 'a', port: 5432, hostaddr: '10.0.0.1': connection is bad: connection to server at "
        '"10.0.0.1", port 5432 failed: Connection refused\n'
        "\tIs the server running on that host and accepting TCP/IP connections?\n"
        "- host: 'b', port: 5432, hostaddr: '10.0.0.2': connection failed: connection to server at "
        f'"10.0.0.2", port 5432 failed: {words}'
    )
    assert told in sentence(error)
    assert reason(error) == words.removeprefix("FATAL:  ")
    told_to_people = fault_at("postgresql://ada@a,b/outbox", error)
    assert told_to_people.startswith("PostgreSQL at a:5432 or b:5432, database outbox, can't be")
    assert told_to_people.endswith(f" used: {reason(error)}.")


@pytest.mark.parametrize("password", ["tell/this", "12/this", "tell/@this"])
def test_a_password_that_is_not_percent_encoded_is_not_told(password: str) -> None:
    error = psycopg.OperationalError('invalid integer value "tell" for connection option "port"')
    told = fault_at(f"postgresql://ada:{password}@h/outbox", error)
    assert told.startswith("The address of the outbox can't be read.")


@pytest.mark.parametrize("url", ["postgresql://h/a%40b", "host=h dbname=a@b"])
def test_a_database_may_have_an_at_sign_in_its_name(url: str) -> None:
    told = fault_at(url, psycopg.OperationalError("gone"))
    assert told == "PostgreSQL at h:5432, database a@b, can't be used: gone."


@pytest.mark.parametrize(
    ("text", "told", "logged"),
    [
        ("connection is bad: no error details available\n", "no error details available", None),
        ("failed to resolve host 'h'.\nmore", "failed to resolve host 'h'", "OperationalError"),
        ("", "OperationalError", None),
    ],
)
def test_a_fault_of_another_form_is_told_by_its_first_line(
    text: str, told: str, logged: str | None
) -> None:
    """The log gets no line that may quote the address."""
    error = psycopg.OperationalError(text)
    where = "PostgreSQL at h:5432, database outbox,"
    assert fault_at("postgresql://h/outbox", error) == f"{where} can't be used: {told}."
    assert reason(error) == (logged or told)


def test_an_address_keeps_what_it_sets_itself() -> None:
    text = connection_string("postgresql://ada:pw@db.example:6432/outbox?connect_timeout=9")
    assert "connect_timeout=9" in text
    assert "tcp_user_timeout=6000" in text
    assert "host=db.example" in text


@in_virtual_time
async def test_a_wake_up_after_the_look_and_before_the_wait_is_not_lost() -> None:
    wakeup = Wakeup()
    looked = wakeup.generation
    wakeup.rows_are_due()
    async with asyncio.timeout(1):
        await wakeup.wait(looked)
