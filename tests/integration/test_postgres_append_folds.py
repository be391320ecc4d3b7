"""While no service runs, appends in SQL fold the changes of the counts themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from service.outbox.postgres.recount import RECOUNT
from service.outbox.schema import migrate
from tests.support.explained import explained, pages
from tests.support.postgres_rows import new_outbox
from tests.support.postgres_server import PostgresServer
from tests.support.storage import PostgresStorage

FOLDED_FROM = 256  # so many changes are read at most, and those until the next look
LOOKS_EVERY = 64
MOST_UNREAD = FOLDED_FROM + 3 * LOOKS_EVERY
MOST_AT_ONCE = 10_000
MORE_PAGES = 15

APPEND = "SELECT count(outbox.append('n', '{}', 'u-' || n %% 9)) FROM generate_series(1, %s) AS n"
APPEND_ONE = "SELECT outbox.append('n', '{}', %(owner)s)"
AT_ONCE = "SET CONSTRAINTS ALL IMMEDIATE"
MANY = "INSERT INTO outbox_changes (delivered) SELECT 0 FROM generate_series(1, %s)"
AGE = "UPDATE outbox_changes SET changed_at = changed_at - interval '21 seconds'"
UNREAD = "SELECT count(*) FROM outbox_changes WHERE no > (SELECT changes_folded FROM outbox_meta)"
ALL_COUNTS = """
SELECT (SELECT array_agg(m) FROM outbox_meta AS m), (SELECT array_agg(n) FROM outbox_counts AS n),
       (SELECT array_agg(d) FROM outbox_carried AS d),
       (SELECT array_agg(c) FROM outbox_changes AS c)
"""
FUNCTIONS = ("outbox_enter", "outbox_fold", "outbox_fold_unread")
SETTINGS = """
SELECT proname, proconfig @> '{jit=off,enable_seqscan=off,enable_bitmapscan=off}' FROM pg_proc
WHERE proname IN ('append', 'outbox_enter', 'outbox_fold', 'outbox_fold_unread')
"""
ROLE = "DROP ROLE IF EXISTS shop; CREATE ROLE shop LOGIN"
GRANT = "GRANT USAGE ON SCHEMA outbox TO shop; GRANT EXECUTE ON FUNCTION outbox.append TO shop"

Connection = psycopg.Connection[Any]


@pytest.fixture
def url(postgres: PostgresServer) -> Iterator[str]:
    with new_outbox(postgres, "folding") as address:
        yield address


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    with psycopg.connect(url, autocommit=True) as opened:
        yield opened


def one(connection: Connection, statement: str) -> Any:
    [(value,)] = connection.execute(statement.encode()).fetchall()
    return value


def folded(connection: Connection) -> int:
    return int(one(connection, "SELECT changes_folded FROM outbox_meta"))


def append(connection: Connection, count: int) -> None:
    """Append so many events, each in a transaction of its own, or all in the one that is open."""
    times, each = (count, 1) if connection.autocommit else (1, count)
    for _ in range(times):
        connection.execute(APPEND, (each,))


def cost(url: str) -> int:
    """The pages that one append touches, with its commit."""
    with psycopg.connect(url) as connection:
        for _ in range(3):
            connection.execute(AT_ONCE)
            plan = explained(connection, APPEND_ONE, {"owner": "u-1"})
            connection.rollback()
    return pages(plan)


def test_an_append_reads_no_more_after_many_appends_without_a_service(
    url: str, connection: Connection
) -> None:
    """Also beside an open transaction, where few changes are left among many that are dead."""
    with psycopg.connect(url) as idle:
        idle.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        idle.execute("SELECT count(*) FROM outbox")
        append(connection, FOLDED_FROM)
        few, unread = cost(url), []
        for _ in range(20):
            append(connection, 200)
            unread.append(one(connection, UNREAD))
        connection.execute(AGE)
        append(connection, FOLDED_FROM + LOOKS_EVERY)
        connection.execute("ANALYZE")
        assert max(unread) <= MOST_UNREAD
        assert cost(url) <= few + MORE_PAGES
    assert one(connection, RECOUNT) == 0
    assert folded(connection) > 3000


def test_an_application_s_session_decides_no_plan(connection: Connection) -> None:
    """Just-in-time compilation of one append takes half a second where the outbox is large."""
    rows = connection.execute(SETTINGS).fetchall()
    assert dict(rows) == dict.fromkeys(("append", *FUNCTIONS), True)


@pytest.mark.parametrize("heavy_rows", [100, 100_000])  # written to outbox_counts, or carried
@pytest.mark.parametrize(
    ("limit", "refusal", "each"),
    [("max_pending", "events wait|many events that wait", 1), ("max_bytes", "stored events", None)],
)
def test_limits_are_exact_while_changes_are_folded(
    connection: Connection, limit: str, refusal: str, each: int | None, heavy_rows: int
) -> None:
    most = 3 * FOLDED_FROM
    connection.execute(APPEND_ONE, {"owner": "ida"})
    size = each or one(connection, "SELECT octet_length(payload) FROM outbox")
    connection.execute(
        f"UPDATE outbox_meta SET {limit}_per_user = {most * size}, heavy_rows = {heavy_rows}"
    )
    for owner in ("ada", "eve"):
        for _ in range(most):
            connection.execute(APPEND_ONE, {"owner": owner})
        with pytest.raises(psycopg.Error, match=f"too_many_pending.*({refusal})"):
            connection.execute(APPEND_ONE, {"owner": owner})
    connection.execute(f"UPDATE outbox_meta SET {limit} = {(2 * most + 2) * size}")
    connection.execute(APPEND_ONE, {"owner": "ida"})
    with pytest.raises(psycopg.Error, match=f"outbox_full.*({refusal})"):
        connection.execute(APPEND_ONE, {"owner": "ida"})
    assert folded(connection) > most


def test_a_change_that_is_not_committed_is_not_passed(url: str, connection: Connection) -> None:
    with psycopg.connect(url) as other:
        other.execute(AT_ONCE)
        append(other, 1)
        append(connection, 2 * FOLDED_FROM)
        assert folded(connection) == 0
        other.commit()
    append(connection, 2 * LOOKS_EVERY)
    assert folded(connection) >= 2 * FOLDED_FROM - LOOKS_EVERY
    assert one(connection, RECOUNT) == 0


def test_a_number_passes_when_those_who_wrote_beside_it_have_ended(
    url: str, connection: Connection
) -> None:
    """Although another one writes by then: under load somebody always does."""
    append(connection, FOLDED_FROM + 10)
    with psycopg.connect(url) as first, psycopg.connect(url) as second:
        for other in (first, second):
            other.execute(AT_ONCE)
        append(first, 1)
        append(connection, LOOKS_EVERY)
        append(second, 1)
        first.commit()
        append(connection, LOOKS_EVERY)
        assert FOLDED_FROM <= folded(connection) < FOLDED_FROM + 2 * LOOKS_EVERY
        second.commit()
    assert one(connection, RECOUNT) == 0


def test_an_append_waits_for_no_other_that_folds(url: str, connection: Connection) -> None:
    connection.execute("SET lock_timeout = '50ms'")
    with psycopg.connect(url) as other:
        other.execute(AT_ONCE)
        append(other, 2 * FOLDED_FROM)
        assert folded(other) >= FOLDED_FROM
        append(connection, 2 * FOLDED_FROM)
        assert folded(connection) == 0
        other.commit()
    append(connection, FOLDED_FROM + LOOKS_EVERY)
    assert one(connection, UNREAD) <= MOST_UNREAD
    assert one(connection, RECOUNT) == 0


def test_an_append_waits_for_nobody_who_changes_the_settings(
    url: str, connection: Connection
) -> None:
    connection.execute("SET lock_timeout = '50ms'")
    with psycopg.connect(url) as other:
        other.execute("UPDATE outbox_meta SET settings_revision = settings_revision + 1")
        append(connection, 2 * FOLDED_FROM)
        assert folded(connection) == 0
        other.commit()
    append(connection, LOOKS_EVERY)
    assert folded(connection) >= FOLDED_FROM


def test_a_rollback_leaves_no_trace(url: str, connection: Connection) -> None:
    append(connection, FOLDED_FROM)
    before = connection.execute(ALL_COUNTS).fetchall()
    with psycopg.connect(url) as other:
        other.execute(AT_ONCE)
        append(other, 2 * FOLDED_FROM)
        assert folded(other) >= FOLDED_FROM
        other.rollback()
    assert connection.execute(ALL_COUNTS).fetchall() == before
    assert one(connection, RECOUNT) == 0


@pytest.mark.parametrize("level", psycopg.IsolationLevel)
def test_an_append_of_any_isolation_level_loses_no_count(
    url: str, connection: Connection, level: psycopg.IsolationLevel
) -> None:
    """An early snapshot does not show what was committed since, so it folds nothing."""
    with psycopg.connect(url) as other:
        other.isolation_level = level
        other.execute(AT_ONCE)
        other.execute("SELECT count(*) FROM outbox_settings")
        append(connection, 100)
        append(other, 2 * FOLDED_FROM)
        early = level >= psycopg.IsolationLevel.REPEATABLE_READ
        assert (folded(other) > 0) is not early
        other.commit()
    assert one(connection, RECOUNT) == 0


def test_appends_of_many_connections_at_once_lose_no_count(
    url: str, connection: Connection
) -> None:
    def shop(number: int) -> None:
        with psycopg.connect(url) as mine:
            for turn in range(60):
                append(mine, 5)
                if (turn + number) % 7:
                    mine.commit()
                else:
                    mine.rollback()

    with ThreadPoolExecutor(4) as shops:
        list(shops.map(shop, range(4)))
    assert one(connection, RECOUNT) == 0
    assert one(connection, UNREAD) < one(connection, "SELECT count(*) FROM outbox")


def test_one_fold_takes_a_part_of_a_long_backlog(connection: Connection) -> None:
    connection.execute(MANY, (2 * MOST_AT_ONCE,))
    append(connection, LOOKS_EVERY + 10)
    assert folded(connection) == MOST_AT_ONCE
    append(connection, 2 * LOOKS_EVERY)
    assert one(connection, UNREAD) <= MOST_UNREAD


def test_one_fold_removes_a_part_of_many_old_changes(connection: Connection) -> None:
    connection.execute(MANY, (2 * MOST_AT_ONCE,))
    assert one(connection, f"SELECT outbox_fold({2 * MOST_AT_ONCE})")
    connection.execute(AGE)
    append(connection, FOLDED_FROM + LOOKS_EVERY)
    assert one(connection, "SELECT min(no) FROM outbox_changes") == MOST_AT_ONCE + 1


def test_folded_changes_are_kept_while_a_service_may_read_them(connection: Connection) -> None:
    """Else each of its reads would have to read the counts of all owners."""
    append(connection, 4 * FOLDED_FROM)
    assert one(connection, "SELECT min(no) FROM outbox_changes") == 1
    connection.execute(AGE)
    was = folded(connection)
    append(connection, 2 * FOLDED_FROM)
    assert one(connection, "SELECT min(no) FROM outbox_changes") == was + 1
    assert one(connection, RECOUNT) == 0


def test_a_role_that_may_only_append_folds(postgres: PostgresServer) -> None:
    with postgres.database("folding_role") as url:
        migrate(url)
        with psycopg.connect(url, autocommit=True) as owner:
            owner.execute(ROLE)
            owner.execute(GRANT)
            with psycopg.connect(url.replace("outbox@", "shop@"), autocommit=True) as shop:
                append(shop, 2 * FOLDED_FROM)
            assert folded(owner) >= FOLDED_FROM
            assert one(owner, RECOUNT) == 0
    with psycopg.connect(postgres.url(), autocommit=True) as owner:
        owner.execute("DROP ROLE shop")


async def test_a_service_that_starts_knows_what_appends_folded(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        append(connection, 3 * FOLDED_FROM)
        async with PostgresStorage(url).open() as outbox:
            assert outbox.undelivered == 3 * FOLDED_FROM
            append(connection, 3 * FOLDED_FROM)
            await outbox._quota._read()
            assert outbox.undelivered == 6 * FOLDED_FROM
            stats = await asyncio.wait_for(outbox.inspector.stats(), 5)
            assert stats.pending == outbox.undelivered
