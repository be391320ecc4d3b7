"""Which event an append of a known key or id gives, and what it leaves in its transaction."""

from __future__ import annotations

import hashlib
from typing import Any

import psycopg
import pytest

from tests.support.postgres_room import START_MS
from tests.support.postgres_rows import new_outbox
from tests.support.postgres_server import PostgresServer
from tests.support.sql_appends import SqlAppends

DAY_SECONDS = 24 * 3600
CALLS = [{"user_id": user, "word": word} for user in ("u-1", "u-2") for word in ("a", "b")]
HELD = "SELECT seq, extract(epoch FROM due_at)::float8 * 1000 FROM outbox_held"
APPENDING = "SELECT current_setting('outbox.appending', true)"
LEAVE_OUT = """
CREATE FUNCTION pg_temp.leave_out() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER leave_out BEFORE INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION pg_temp.leave_out();
"""


def append(sql: SqlAppends, parameter: str, word: str, **fields: Any) -> str:
    return sql.append(**{parameter: word}, **fields)


@pytest.mark.parametrize("parameter", ["idempotency_key", "id"])
def test_a_repeat_gives_the_event_of_its_owner_and_key(sql: SqlAppends, parameter: str) -> None:
    first = [append(sql, parameter, **one) for one in CALLS]
    assert len(set(first)) == len(CALLS)
    assert [append(sql, parameter, **one) for one in CALLS] == first
    assert sql.append() not in first
    assert sql.append() not in first
    assert len(sql.room.rows("")) == len(CALLS) + 2


OTHER = [{"name": "other"}, {"environment": "branch"}, {"data": {"a": 2}}]


@pytest.mark.parametrize("other", OTHER)
def test_a_key_is_for_one_name_environment_and_data(sql: SqlAppends, other: dict[str, Any]) -> None:
    given: dict[str, Any] = {"data": {"a": 1}, "idempotency_key": "k"}
    first = sql.append(**given)
    with pytest.raises(psycopg.errors.UniqueViolation) as refused:
        sql.append(**{**given, **other})
    said = "idempotency_key_reused: the key was used for other data"
    assert refused.value.diag.message_primary == said
    assert sql.append(**given, user_name="Ada", ts=START_MS, trace="t") == first


def test_an_id_is_for_one_name_and_environment_whatever_the_data(sql: SqlAppends) -> None:
    first = sql.append(id="w")
    assert sql.append(id="w", data={"a": 1}) == first
    assert len({first, sql.append(id="w", name="n"), sql.append(id="w", environment="e")}) == 3


def test_a_key_keeps_a_digest_and_an_id_the_key_of_the_door(sql: SqlAppends) -> None:
    row = sql.stored(sql.append(id="ü", name="n", environment="e"))
    assert row["idempotency_key"] == hashlib.sha256("id\0e\0n\0ü".encode()).hexdigest()
    assert row["idempotency_digest"] == bytes(32)
    row = sql.stored(sql.append(id="w", name="n"))
    assert row["idempotency_key"] == hashlib.sha256(b"id\0\0n\0w").hexdigest()
    row = sql.stored(sql.append(idempotency_key="k", name="n", environment="e", data={"a": "ü"}))
    assert row["idempotency_key"] == "k"
    assert row["idempotency_digest"] == hashlib.sha256('e n {"a": "ü"}'.encode()).digest()


def test_an_id_is_free_after_a_day_and_nothing_else(sql: SqlAppends) -> None:
    first = [append(sql, "id", **one) for one in CALLS]
    keyed = [append(sql, "idempotency_key", **one) for one in CALLS]
    sql.room.at(DAY_SECONDS)
    assert append(sql, "id", **CALLS[0]) == first[0]
    sql.room.at(DAY_SECONDS + 0.001)
    assert [append(sql, "idempotency_key", **one) for one in CALLS] == keyed
    later = append(sql, "id", **CALLS[0])
    assert later not in first
    assert append(sql, "id", **CALLS[0]) == later
    free = [one for one in (*first, *keyed, later) if "idempotency_key" not in sql.stored(one)]
    assert free == first[:1]
    assert "idempotency_digest" not in sql.stored(first[0])


def test_a_transaction_is_repeated_where_the_first_event_is_gone(sql: SqlAppends) -> None:
    sql.room.run(LEAVE_OUT)
    with pytest.raises(psycopg.errors.SerializationFailure) as refused:
        sql.append(idempotency_key="k")
    said = "the first event of this key was removed meanwhile"
    assert refused.value.diag.message_primary == said


def test_an_event_is_held_that_may_be_sent_later(sql: SqlAppends) -> None:
    sql.append()
    sql.append(send_at=START_MS)
    later = sql.stored(sql.append(send_at=START_MS + 1))
    assert sql.room.run(HELD) == [(later["seq"], START_MS + 1)]


def test_an_owner_and_the_bytes_of_an_event_are_asked_for_room(sql: SqlAppends) -> None:
    size = len(sql.stored(sql.append())["payload"])
    limit = "UPDATE outbox_meta SET max_bytes_per_user = %s"
    owner = "database u-1"
    sql.room.put("counts", owner=owner, pending=1, stored=1, stored_bytes=size)
    sql.room.run(limit, [2 * size])
    sql.append()
    sql.room.run(limit, [2 * size - 1])
    with pytest.raises(psycopg.errors.ConfigurationLimitExceeded, match="too_many_pending"):
        sql.append()
    sql.append(user_id="u-2")
    assert len(sql.room.rows("")) == 3


def test_a_row_that_is_no_application_s_does_not_enter_a_lane_behind_an_append(
    sql: SqlAppends,
) -> None:
    sql.append()
    one = {"event_id": "e", "name": "n", "owner": "o", "user_id": "u", "payload": b"x"}
    sql.room.put("", seq=99, accepted_at_ms=0, **one)
    sql.room.run("SET CONSTRAINTS ALL IMMEDIATE")
    [row] = sql.room.rows("ready")
    assert row != 99


def test_a_session_does_not_append_after_its_transaction(postgres: PostgresServer) -> None:
    """A service may have the session next, behind a pool of connections."""
    with new_outbox(postgres, "appended") as url, psycopg.connect(url) as connection:
        connection.execute("SELECT outbox.append('n', '{}', idempotency_key => 'k')")
        assert connection.execute(APPENDING).fetchall() == [("",)]
        connection.commit()
        assert connection.execute(APPENDING).fetchall() == [("",)]
