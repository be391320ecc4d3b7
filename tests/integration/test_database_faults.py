"""A command that meets a faulty database names the server and the cause, never the password."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from inngest_outbox.processes.main import app
from tests.support.outbox_command import outbox_command
from tests.support.postgres_server import PostgresServer

SECRET = "s3cr:et"
ENCODED = "s3cr%3Aet"
AWAY = f"postgresql://ada:{ENCODED}@127.0.0.1:1/events"
REFUSED = "PostgreSQL at 127.0.0.1:1, database events, can't be used: Connection refused."


@pytest.fixture
def without_rights(postgres: PostgresServer) -> Iterator[str]:
    """A database in which the role of the address may make nothing."""
    with postgres.database("locked") as url, psycopg.connect(url, autocommit=True) as connection:
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        connection.execute("CREATE ROLE visitor LOGIN")
        yield url.replace("outbox@", f"visitor:{ENCODED}@")
        connection.execute("DROP ROLE visitor")


def migrate(url: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["migrate"], env={"OUTBOX_URL": url})
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (AWAY, REFUSED),
        (
            f"postgresql://ada:{ENCODED}@host.invalid/events",
            "PostgreSQL at host.invalid:5432, database events, can't be used: ",
        ),
        (
            f"postgres://ada:{ENCODED}@127.0.0.1:1,127.0.0.1:2/events",
            "PostgreSQL at 127.0.0.1:1 or 127.0.0.1:2, database events, can't be used: ",
        ),
        (f"postgresql://ada:{ENCODED}@h/events?wrong=1", "The address of the outbox can't be"),
    ],
)
async def test_migrate_and_move_say_which_server_and_why(
    tmp_path: Path, url: str, said: str
) -> None:
    target = f"sqlite:///{tmp_path / 'target.db'}"
    _, _, err = await outbox_command(url, "move", "--to", target)
    code, out = migrate(url)
    assert code == (2 if said.startswith("The address") else 1)
    for text in (out, err, (await outbox_command(url, "stats"))[2]):
        assert said in text
        assert SECRET not in text
        assert ENCODED not in text


def test_a_missing_right_is_told_in_the_words_of_the_server(without_rights: str) -> None:
    code, out = migrate(without_rights)
    assert code == 2
    assert "database locked, can't be used: permission denied for database locked." in out
    assert SECRET not in out


async def test_a_command_that_may_not_do_something_says_what(
    postgres: PostgresServer, postgres_url: str
) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE reader LOGIN")
        try:
            connection.execute("GRANT USAGE ON SCHEMA outbox TO reader")
            connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA outbox TO reader")
            url = postgres_url.replace("outbox@", f"reader:{ENCODED}@")
            assert (await outbox_command(url, "stats"))[0] == 0
            code, _, err = await outbox_command(url, "pause")
        finally:
            connection.execute("DROP OWNED BY reader")
            connection.execute("DROP ROLE reader")
    assert code == 2
    server = f"PostgreSQL at {postgres.folder}, database outbox"
    assert err == f"outbox: {server}: The outbox's database denies this user a right.\n"


async def test_a_move_into_a_missing_server_says_which(tmp_path: Path) -> None:
    source = tmp_path / "outbox.db"
    assert migrate(f"sqlite:///{source}")[0] == 0
    code, _, err = await outbox_command(source, "move", "--to", AWAY)
    assert (code, err) == (2, f"outbox: {REFUSED}\n")


def test_what_can_not_be_used_is_named(postgres: PostgresServer, tmp_path: Path) -> None:
    code, out = migrate(postgres.url("absent"))
    assert code == 1
    assert 'can\'t be used: database "absent" does not exist.' in out
    text = tmp_path / "notes.db"
    text.write_text("no database " * 100)
    code, out = migrate(f"sqlite:///{text}")
    assert code == 2
    assert f"{text} can't be used: file is not a database." in " ".join(out.split())
