"""The first and the last value that `outbox.append` takes, and the one beyond."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

MOST_BYTES = 3 * 2**20
FIRST_MS, LAST_MS = 315_532_800_000, 4_102_444_800_000
DEEP = "outbox.append('n', ('{\"a\":' || repeat('[', %(n)s) || repeat(']', %(n)s) || '}')::jsonb)"
PADDED = "outbox.append('n', jsonb_build_object('pad', repeat('x', %(n)s)))"
FLOAT = "outbox.append('n', ('{\"n\": ' || %(n)s || '}')::jsonb)"
SESSION = {"sessions": {"k": "v"}}

Connection = psycopg.Connection[Any]


@pytest.fixture
def connection(postgres_url: str) -> Iterator[Connection]:
    with psycopg.connect(postgres_url, autocommit=True) as opened:
        yield opened


def takes(connection: Connection, call: str, **given: object) -> bool:
    """Whether an append takes these values."""
    try:
        connection.execute(f"SELECT {call}", given)
    except psycopg.errors.InvalidParameterValue:
        return False
    return True


def takes_fields(connection: Connection, **fields: object) -> bool:
    values = {name: Jsonb(one) if isinstance(one, dict) else one for name, one in fields.items()}
    named = ", ".join(f"{name} => %({name})s" for name in fields)
    return takes(connection, f"outbox.append('n', '{{}}', {named})", **values)


@pytest.mark.parametrize("name", ["issuer", "user_id", "idempotency_key", "environment"])
def test_a_name_has_1_to_255_characters(connection: Connection, name: str) -> None:
    lengths = [
        length for length in (0, 1, 255, 256) if takes_fields(connection, **{name: "x" * length})
    ]
    assert lengths == [1, 255]


@pytest.mark.parametrize("name", ["idempotency_key", "environment"])
def test_a_visible_name_has_characters_from_21_to_7e(connection: Connection, name: str) -> None:
    taken = [one for one in " !~\x7f" if takes_fields(connection, **{name: f"a{one}b"})]
    assert taken == ["!", "~"]


def test_an_issuer_without_a_user_and_without_itself(connection: Connection) -> None:
    assert takes_fields(connection, issuer="https://issuer", user_id=None)
    assert not takes_fields(connection, issuer=None)
    assert not takes_fields(connection, issuer=None, user_id="u-1")


def test_a_time_is_between_1980_and_2100(connection: Connection) -> None:
    near = (1, FIRST_MS - 1, FIRST_MS, LAST_MS, LAST_MS + 1)
    assert [ts for ts in near if takes_fields(connection, ts=ts)] == [FIRST_MS, LAST_MS]


def test_an_event_is_held_until_2100_at_most(connection: Connection) -> None:
    near = (-1, 0, LAST_MS, LAST_MS + 1)
    assert [at for at in near if takes_fields(connection, send_at=at)] == [0, LAST_MS]


def test_data_are_nested_500_levels_deep_at_most(connection: Connection) -> None:
    assert [n for n in (499, 500) if takes(connection, DEEP, n=n)] == [499]


def test_an_event_has_3_mib_at_most(connection: Connection) -> None:
    assert takes(connection, PADDED, n=0)
    [(size,)] = connection.execute("SELECT octet_length(payload) FROM outbox").fetchall()
    room = MOST_BYTES - size
    assert [n for n in (room, room + 1) if takes(connection, PADDED, n=n)] == [room]


@pytest.mark.parametrize("sign", ["", "-"])
def test_a_number_is_within_the_range_of_a_float(connection: Connection, sign: str) -> None:
    numbers = [f"{sign}1.7976931348623158e308", f"{sign}1.79769313486231581e308"]
    assert [one for one in numbers if takes(connection, FLOAT, n=one)] == numbers[:1]


@pytest.mark.parametrize("layer", ["sessions", "propagated_sessions"])
def test_a_session_has_a_key_of_128_bytes_and_a_value_of_512(
    connection: Connection, layer: str
) -> None:
    def lengths(make: Any, most: int) -> list[int]:
        tried = (0, 1, most, most + 1)
        return [n for n in tried if takes_fields(connection, meta={layer: make("x" * n)})]

    assert lengths(lambda text: {text: "v"}, 128) == [1, 128]
    assert lengths(lambda text: {"k": text}, 512) == [1, 512]


def test_what_does_not_come_from_a_session_s_layer_is_not_kept(connection: Connection) -> None:
    assert takes_fields(connection, meta={**SESSION, "other": [1], "more": "text"})
    [(payload,)] = connection.execute("SELECT payload FROM outbox").fetchall()
    assert b"other" not in payload
    assert not takes(connection, "outbox.append('n', '{}', meta => '[1]')")
    assert takes(connection, "outbox.append('n', '{}', meta => 'null')")


def test_the_id_of_an_event_begins_with_its_time(connection: Connection) -> None:
    assert takes_fields(connection, user_id="u-1")
    [(event_id, at_ms)] = connection.execute(
        "SELECT event_id, accepted_at_ms FROM outbox"
    ).fetchall()
    assert uuid.UUID(event_id).int >> 80 == at_ms
