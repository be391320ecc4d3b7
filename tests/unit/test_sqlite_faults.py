"""What SQLite's errors mean: what else fails by them, and the sentence for a person."""

from __future__ import annotations

import sqlite3

import pytest
from structlog.testing import capture_logs

from service.errors import OutboxUnavailableError
from service.outbox.sqlite.file import faults
from service.outbox.sqlite.file.faults import (
    FaultScope,
    is_corruption,
    is_disk_trouble,
    is_io_error,
    scope_of,
    unavailable_if_sqlite_fails,
)
from tests.support.sqlite_faults import fault, sqlite_error

STORE, KIND, ITEM = FaultScope.STORE, FaultScope.KIND, FaultScope.ITEM
MEANING = [
    # the error, what else fails, and whether it is an I/O error, the disk's, damage
    ("SQLITE_BUSY", STORE, "no no no"),
    ("SQLITE_BUSY_SNAPSHOT", STORE, "no no no"),
    ("SQLITE_LOCKED", STORE, "no no no"),
    ("SQLITE_READONLY", STORE, "no no no"),
    ("SQLITE_CANTOPEN", STORE, "no no no"),
    ("SQLITE_NOTADB", STORE, "no no yes"),
    ("SQLITE_IOERR", STORE, "yes yes no"),
    ("SQLITE_IOERR_FSYNC", STORE, "yes yes no"),
    ("SQLITE_FULL", KIND, "no yes no"),
    ("SQLITE_NOMEM", KIND, "no no no"),
    ("SQLITE_CORRUPT", STORE, "no no yes"),
    ("SQLITE_CORRUPT_INDEX", STORE, "no no yes"),
    ("SQLITE_CONSTRAINT_UNIQUE", ITEM, "no no no"),
    ("SQLITE_ERROR", ITEM, "no no no"),
]


@pytest.mark.parametrize(("name", "scope", "is_one"), MEANING)
def test_an_error_means_the_same_as_sqlite_raises_it_and_as_the_outbox_does(
    name: str, scope: FaultScope, is_one: str
) -> None:
    for error in (sqlite_error(name), fault(name)):
        assert scope_of(error) is scope
        found = (is_io_error(error), is_disk_trouble(error), is_corruption(error))
        assert found == tuple(word == "yes" for word in is_one.split())


@pytest.mark.parametrize(
    ("error", "scope"),
    [
        (OutboxUnavailableError("It was closed."), STORE),
        (ValueError("a bug"), ITEM),
        (sqlite3.ProgrammingError("no code"), ITEM),
    ],
)
def test_an_error_without_a_code_of_sqlite_is_the_outboxs_or_the_items(
    error: Exception, scope: FaultScope
) -> None:
    assert scope_of(error) is scope
    assert {is_io_error(error), is_disk_trouble(error), is_corruption(error)} == {False}


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (sqlite_error("SQLITE_FULL"), "The disk of the outbox is full. (SQLITE_FULL)"),
        (sqlite_error("SQLITE_IOERR_WRITE"), "The disk of the outbox failed. (SQLITE_IOERR_WRITE)"),
        (sqlite_error("SQLITE_ERROR"), "The outbox's file failed. (SQLITE_ERROR)"),
        (sqlite3.ProgrammingError("closed"), "The outbox's file failed. (ProgrammingError)"),
    ],
)
def test_an_error_becomes_a_sentence(
    error: sqlite3.Error, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "is_out_of_descriptors", lambda: False)
    with pytest.raises(OutboxUnavailableError) as raised, unavailable_if_sqlite_fails():
        raise error
    assert str(raised.value) == sentence
    assert raised.value.__cause__ is error


def test_another_error_stays_as_it_is() -> None:
    with pytest.raises(ValueError, match="a bug"), unavailable_if_sqlite_fails():
        raise ValueError("a bug")


@pytest.mark.parametrize(
    ("name", "none_free", "is_told"),
    [
        ("SQLITE_CANTOPEN", True, True),
        ("SQLITE_IOERR_GETTEMPPATH", True, True),
        ("SQLITE_CANTOPEN", False, False),
        ("SQLITE_FULL", True, False),
    ],
)
def test_a_process_without_free_descriptors_is_told_so(
    name: str, *, none_free: bool, is_told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "is_out_of_descriptors", lambda: none_free)
    with (
        capture_logs() as logs,
        pytest.raises(OutboxUnavailableError) as raised,
        unavailable_if_sqlite_fails(),
    ):
        raise sqlite_error(name)
    assert ("file descriptor" in str(raised.value)) is is_told
    assert str(raised.value).endswith(f"({name})")
    told = [{"event": "no_file_descriptors", "log_level": "error", "error": name}]
    assert logs == (told if is_told else [])
