"""Damage of an outbox's file: which errors mean it, and that it is told once."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from service.errors import OutboxUnavailableError
from service.outbox.sqlite.damage import SENTENCE, Damage, is_unreadable
from tests.support.work_kinds import fault, sqlite_error

PATH = Path("/data/outbox.db")


@pytest.fixture
def damage() -> Damage:
    return Damage(PATH)


def test_a_file_is_sound_until_an_error_says_that_it_is_damaged(damage: Damage) -> None:
    assert damage.is_found is False
    with capture_logs() as logs:
        for error in (fault("SQLITE_FULL"), sqlite_error("SQLITE_IOERR"), ValueError("a bug")):
            damage.note(error)
    assert damage.is_found is False
    assert logs == []


@pytest.mark.parametrize("error", [fault("SQLITE_CORRUPT"), sqlite_error("SQLITE_CORRUPT")])
def test_damage_is_remembered_and_told_once_with_what_sqlite_said(
    damage: Damage, error: Exception
) -> None:
    with capture_logs() as logs:
        damage.note(error)
        damage.note(sqlite_error("SQLITE_NOTADB"))
        damage.note(ValueError("a bug"))
    assert damage.is_found is True
    told = {"file": str(PATH), "reason": "SQLITE_CORRUPT", "advice": SENTENCE}
    assert logs == [{"event": "file_damaged", "log_level": "error", **told}]


UNDECODED = sqlite3.OperationalError("Could not decode to UTF-8 column 'name' with text '\xff'")


@pytest.mark.parametrize(
    "error",
    [
        msgspec.DecodeError("truncated"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        sqlite_error("SQLITE_CORRUPT"),
        fault("SQLITE_CORRUPT"),
        UNDECODED,
    ],
)
def test_content_that_can_not_be_read_is_told_from_other_errors(error: Exception) -> None:
    assert is_unreadable(error) is True


@pytest.mark.parametrize(
    "error",
    [
        sqlite_error("SQLITE_BUSY"),
        fault("SQLITE_IOERR"),
        sqlite3.ProgrammingError("Cannot operate on a closed database."),
        OutboxUnavailableError("It was closed."),
        ValueError("a bug"),
    ],
)
def test_another_error_says_nothing_about_the_content(error: Exception) -> None:
    assert is_unreadable(error) is False
