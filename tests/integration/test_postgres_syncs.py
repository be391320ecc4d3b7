"""Which level of sync a commit of the service has, whatever the database's default is.

PostgreSQL reads the level at the commit, after the last trigger of the transaction.
"""

from __future__ import annotations

import psycopg
import pytest

from service.outbox.keys import IdempotencyKey
from service.outbox.schema import migrate
from tests.support.postgres_server import PostgresServer
from tests.support.storage import PostgresStorage, event

SEEN = """
CREATE TABLE public.seen_levels (transaction xid8 PRIMARY KEY, level text);
CREATE FUNCTION public.see_level() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.seen_levels
    VALUES (pg_current_xact_id(), current_setting('synchronous_commit')) ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER see_level AFTER INSERT ON outbox.{table} DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION public.see_level()
"""
WHOSE = {
    "database": "ALTER DATABASE synced SET synchronous_commit = '{level}'",
    "role": "ALTER ROLE outbox IN DATABASE synced SET synchronous_commit = '{level}'",
}
KEPT = [
    ("database", "local", "local"),
    *(
        pytest.param("database", one, one, marks=pytest.mark.slow)
        for one in ("remote_write", "on", "remote_apply")
    ),
]
LEVELS = [("database", "off", "on"), ("role", "off", "on"), *KEPT]


def prepare(url: str, table: str, whose: str, level: str) -> None:
    """An outbox whose sessions begin with the level, and that notes the levels of its commits."""
    migrate(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(SEEN.format(table=table).encode())
        connection.execute(WHOSE[whose].format(level=level).encode())


def levels(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        return {level for (level,) in connection.execute("SELECT level FROM public.seen_levels")}


@pytest.mark.parametrize(("whose", "level", "committed"), LEVELS)
async def test_an_append_is_synced_and_keeps_any_other_level(
    postgres: PostgresServer, whose: str, level: str, committed: str
) -> None:
    with postgres.database("synced") as url:
        prepare(url, "events", whose, level)
        async with PostgresStorage(url).open() as outbox:
            await outbox.intake.append(event())
            await outbox.intake.append(event(), key=IdempotencyKey("k", b"1"))
            await outbox.intake.append_all((event(), event()), (None, None))
        assert levels(url) == {committed}


@pytest.mark.parametrize(("level", "committed"), [("off", "on"), ("local", "local")])
async def test_an_answer_about_a_stored_event_waits_for_its_sync(
    postgres: PostgresServer, level: str, committed: str
) -> None:
    with postgres.database("synced") as url:
        async with PostgresStorage(url).open() as outbox:
            one, key = event(), IdempotencyKey("k", b"1")
            await outbox.intake.append(one, key=key)
        prepare(url, "changes", "database", level)
        async with PostgresStorage(url).open() as outbox:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("TRUNCATE public.seen_levels")
                assert (await outbox.intake.append(one, key=key)).replayed
                seen = connection.execute("SELECT level FROM public.seen_levels").fetchall()
    assert (committed,) in seen
