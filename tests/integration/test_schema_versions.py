"""Which migrations an outbox has, lacks and gets, and what is said of those of a later version."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from inngest_outbox.errors import OutboxUnavailableError, SchemaTooNewError, SchemaTooOldError
from inngest_outbox.outbox import schema
from inngest_outbox.outbox.schema import known_ids, migrate, migration_files, pending
from inngest_outbox.outbox.sqlite.file.schema import SqliteSchema

KNOWN = tuple((f"000{n}_{name}", f"CREATE TABLE {name} (x);") for n, name in enumerate("abc", 1))
IDS = [migration_id for migration_id, _ in KNOWN]


@pytest.fixture(autouse=True)
def _three_migrations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "_migrations", {"sqlite": KNOWN}.__getitem__)


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


def apply(path: Path, *ids: str) -> None:
    SqliteSchema(path).apply([(one, "SELECT 1;") for one in ids])


def test_what_is_missing_is_applied_in_its_order(path: Path, url: str) -> None:
    assert known_ids() == IDS
    assert pending(url) == IDS
    apply(path, IDS[1])
    assert pending(url) == [IDS[0], IDS[2]]
    with capture_logs() as logs:
        assert migrate(url) == [IDS[0], IDS[2]]
        assert (migrate(url), pending(url)) == ([], [])
    assert logs == []
    assert SqliteSchema(path).applied() == set(IDS)


def test_the_next_migration_is_told(path: Path, url: str) -> None:
    apply(path, *IDS, "0004_later")
    with capture_logs() as logs:
        assert pending(url) == []
        assert logs == []
        assert migrate(url) == []
    said = {"applied": "0004_later", "known": "0003_c", "until": "0005"}
    assert logs == [{"event": "schema_is_newer", "log_level": "warning", **said}]


def test_the_migration_after_the_next_is_refused(path: Path, url: str) -> None:
    apply(path, *IDS, "0005_later")
    for ask in (pending, migrate):
        with pytest.raises(SchemaTooNewError):
            ask(url)


@pytest.mark.parametrize("ids", [["0000_odd"], ["0003_other"], [*IDS, "0002_x", "0005_later"]])
def test_an_outbox_of_before_the_first_release_is_refused(
    path: Path, url: str, ids: list[str]
) -> None:
    apply(path, *ids)
    for ask in (pending, migrate):
        with pytest.raises(SchemaTooOldError, match=r"^This outbox .* another OUTBOX_URL\.$"):
            ask(url)


def test_a_database_that_refuses_a_migration_is_told(path: Path, url: str) -> None:
    apply(path)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE b (x)")
    connection.close()
    with pytest.raises(OutboxUnavailableError) as told:
        migrate(url)
    assert str(told.value) == f"{path} can't be used: table b already exists."
    assert pending(url) == IDS


def test_a_database_that_can_not_be_read_or_made_is_told(path: Path, url: str) -> None:
    path.write_bytes(b"garbage " * 1000)
    path.chmod(0o600)
    for ask, address, said in (
        (pending, url, f"{path} can't be used: file is not a database."),
        (migrate, url, f"{path} can't be used: file is not a database."),
        (migrate, f"{url}/outbox.db", f"{path}/outbox.db can't be used: File exists."),
    ):
        with pytest.raises(OutboxUnavailableError) as told:
            ask(address)
        assert str(told.value) == said


def test_a_fault_of_the_machine_is_told_without_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: str) -> Any:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(schema, "_schema", broken)
    with pytest.raises(OutboxUnavailableError) as told:
        pending("postgresql://ada:secret@db/outbox")
    said = "postgresql://ada:********@db/outbox can't be used: Too many open files."
    assert str(told.value) == said


@pytest.mark.parametrize("installed", [True, False])
def test_the_files_are_inside_an_installed_package_or_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, installed: bool
) -> None:
    package = tmp_path / "service" / "inngest_outbox"
    folder = (package if installed else tmp_path) / "migrations" / "sqlite"
    folder.mkdir(parents=True)
    monkeypatch.setattr(schema, "__file__", str(package / "outbox" / "schema.py"))
    for name in ("0002_b.sql", "0001_a.sql", "notes.md"):
        (folder / name).touch()
    assert migration_files("sqlite") == [folder / "0001_a.sql", folder / "0002_b.sql"]
