"""What an error of PostgreSQL's driver, or another one, is taken for and called."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from service.outbox.postgres.database.faults import is_of_the_database, reason, said, sentence

FULL = "The disk of the outbox's database is full."
NO_CONNECTION = "The outbox's database has no connection left."
PREFIX = 'connection failed: connection to server at "10.0.0.1", port 5432 failed: FATAL:  '
SLOTS = "remaining connection slots are reserved"


class ToldFull(psycopg.errors.DiskFull):
    """As the server tells it, with its own words."""

    diag: Any = SimpleNamespace(message_primary="could not extend file")


class ToldOdd(psycopg.errors.SyntaxError):
    diag: Any = SimpleNamespace(message_primary="too many clients")


@pytest.mark.parametrize(
    ("error", "whole"),
    [
        (psycopg.InterfaceError("the connection is closed"), True),
        (psycopg.OperationalError("words"), False),
        (psycopg.errors.AdminShutdown("words"), True),
        (TimeoutError(), True),
        (ToldFull("words"), True),
        (ToldOdd("words"), False),
        (OSError("words"), False),
        (ValueError("words"), False),
    ],
)
def test_an_error_of_every_other_write_too(error: Exception, *, whole: bool) -> None:
    assert is_of_the_database(error) is whole


@pytest.mark.parametrize(
    ("error", "words", "cause", "told"),
    [
        (ToldFull("x"), "could not extend file", "could not extend file (53100)", FULL),
        (ToldOdd("x"), "too many clients", "too many clients (42601)", NO_CONNECTION),
        (psycopg.errors.DiskFull("x"), "", "DiskFull", FULL),
        (psycopg.OperationalError(PREFIX + SLOTS), SLOTS, SLOTS, NO_CONNECTION),
        (OSError("x"), "", "OSError", "The outbox's database does not answer."),
        (TimeoutError(), "", "TimeoutError", "The outbox's database does not answer in time."),
    ],
)
def test_an_error_is_told_by_its_kind_else_by_the_servers_words(
    error: Exception, words: str, cause: str, told: str
) -> None:
    assert said(error) == words
    assert reason(error) == cause
    assert sentence(error) == told
