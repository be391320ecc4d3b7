"""The first and the last value that `outbox.append` takes, and what it says of the one beyond."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest

from tests.support.postgres_room import START_MS
from tests.support.sql_appends import SqlAppends

MOST_BYTES = 3 * 2**20
FIRST_MS, LAST_MS = 315_532_800_000, 4_102_444_800_000
DEEP = "('{\"a\":' || repeat('[', %(n)s) || repeat(']', %(n)s) || '}')::jsonb"
NUMBER = "('{\"n\": [' || %(n)s || ']}')::jsonb"
LARGEST = "1.7976931348623158e308"
OUT_OF_RANGE = "1.79769313486231581e308"

WHO = "an issuer has 1 to 255 characters and no space, a user 1 to 255"
KEY = "an idempotency key has 1 to 255 visible ASCII characters"
SESSION = (
    "a session in the meta of an event is a string or a number of 1 to 512 bytes, "
    "under a key of 1 to 128 bytes"
)
LAYER = "the sessions in the meta of an event are a JSON object"
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"name": None}, "the name of an event must be present"),
    ({"name": ""}, "the name of an event must be present"),
    ({"name": "Inngest/x"}, "event names that start with inngest/ are reserved"),
    ({"issuer": None}, WHO),
    ({"issuer": "a b"}, WHO),
    ({"user_id": ""}, WHO),
    ({"idempotency_key": ""}, KEY),
    ({"idempotency_key": "k", "id": "w"}, "an event has an id or an idempotency key, not both"),
    ({"environment": ""}, "an environment has 1 to 255 visible ASCII characters"),
    ({"ts": 1}, "ts is in milliseconds, between 1980 and 2100"),
    ({"send_at": -1}, "send_at is in milliseconds, between 1970 and 2100"),
    ({"data": None}, "the data of an event is a JSON object"),
    ({"data": "[1]"}, "the data of an event is a JSON object"),
    ({"user_fields": "[1]"}, "the user of an event is a JSON object"),
    ({"meta": "[1]"}, "the meta of an event is a JSON object"),
    ({"meta": {"sessions": []}}, LAYER),
    ({"meta": {"propagated_sessions": "a"}}, LAYER),
    ({"meta": {"sessions": {"a": True}}}, SESSION),
    (
        {"meta": {"sessions": {str(number): "a" for number in range(6)}}},
        "the meta of an event has more than 5 sessions",
    ),
]


@pytest.mark.parametrize(("fields", "said"), REFUSED)
def test_a_refusal_says_what_is_wrong(sql: SqlAppends, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue) as refused:
        sql.append(**fields)
    assert refused.value.diag.message_primary == said
    assert sql.room.rows("") == {}


@pytest.mark.parametrize("name", ["issuer", "user_id", "idempotency_key", "environment"])
def test_a_name_has_1_to_255_characters(sql: SqlAppends, name: str) -> None:
    assert [n for n in (0, 1, 255, 256) if sql.takes(**{name: "x" * n})] == [1, 255]


@pytest.mark.parametrize("name", ["idempotency_key", "environment"])
def test_a_visible_name_has_characters_from_21_to_7e(sql: SqlAppends, name: str) -> None:
    assert [one for one in " !~\x7f" if sql.takes(**{name: f"a{one}b"})] == ["!", "~"]


def test_an_issuer_without_a_user_is_the_owner(sql: SqlAppends) -> None:
    row = sql.stored(sql.append(issuer="https://issuer", user_id=None))
    assert (row["owner"], row["user_id"]) == ("https://issuer", "")
    row = sql.stored(sql.append())
    assert (row["owner"], row["user_id"]) == ("database u-1", "u-1")
    assert not sql.takes(issuer=None, user_id=None)


def test_a_time_is_between_1980_and_2100(sql: SqlAppends) -> None:
    near = (1, FIRST_MS - 1, FIRST_MS, LAST_MS, LAST_MS + 1)
    assert [ts for ts in near if sql.takes(ts=ts)] == [FIRST_MS, LAST_MS]


def test_an_event_is_held_until_2100_at_most(sql: SqlAppends) -> None:
    near = (-1, 0, LAST_MS, LAST_MS + 1)
    assert [at for at in near if sql.takes(send_at=at)] == [0, LAST_MS]


@pytest.mark.parametrize(("column", "word"), [("data", "data"), ("user_fields", "user")])
def test_an_object_is_nested_500_levels_deep_at_most(
    sql: SqlAppends, column: str, word: str
) -> None:
    rest = "" if column == "data" else "data => '{}', "
    call = f"'n', {rest}{column} => {DEEP}"
    sql.call(call, {"n": 499})
    with pytest.raises(psycopg.errors.InvalidParameterValue) as refused:
        sql.call(call, {"n": 500})
    said = f"the {word} of an event is nested deeper than 500 levels"
    assert refused.value.diag.message_primary == said


def test_brackets_are_counted_where_they_nest(sql: SqlAppends) -> None:
    """Not those inside of texts, and not those side by side."""
    texts = ['["' * 600 + "\\", "]" * 600]
    assert sql.takes(data={"texts": texts, "pairs": [[], {}] * 600})
    depths = {
        "{}": 1,
        "[1, 2]": 1,
        '{"a": [{}], "b": {}}': 3,
        "[[], [[]]]": 3,
        '["{[", "\\"[", "\\\\", []]': 2,
    }
    for text, depth in depths.items():
        assert sql.room.run("SELECT outbox_depth(%s)", [text]) == [(depth,)]
    assert sql.room.run("SELECT outbox_depth('1')") == [(0,)]


def test_an_event_has_3_mib_at_most(sql: SqlAppends) -> None:
    call = "'n', jsonb_build_object('pad', repeat('x', %(n)s))"
    room = MOST_BYTES - len(sql.stored(sql.call(call, {"n": 0}))["payload"])
    sql.call(call, {"n": room})
    with pytest.raises(psycopg.errors.InvalidParameterValue) as refused:
        sql.call(call, {"n": room + 1})
    assert refused.value.diag.message_primary == "the event is larger than 3 MiB"


@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize(("column", "word"), [("data", "data"), ("user_fields", "user")])
def test_a_number_is_within_the_range_of_a_float(
    sql: SqlAppends, sign: str, column: str, word: str
) -> None:
    rest = "" if column == "data" else "data => '{}', "
    call = f"'n', {rest}{column} => {NUMBER}"
    sql.call(call, {"n": sign + LARGEST})
    sql.call(call, {"n": f'"{"9" * 400}"'})
    with pytest.raises(psycopg.errors.InvalidParameterValue) as refused:
        sql.call(call, {"n": sign + OUT_OF_RANGE})
    said = f"a number in the {word} of an event is out of range"
    assert refused.value.diag.message_primary == said


@pytest.mark.parametrize("layer", ["sessions", "propagated_sessions"])
def test_a_session_has_a_key_of_128_bytes_and_a_value_of_512(sql: SqlAppends, layer: str) -> None:
    def lengths(make: Any, most: int) -> list[int]:
        tried = (0, 1, most, most + 1)
        return [n for n in tried if sql.takes(meta={layer: make("x" * n)})]

    assert lengths(lambda text: {text: "v"}, 128) == [1, 128]
    assert lengths(lambda text: {"k": text}, 512) == [1, 512]


def test_the_id_of_an_event_is_its_time_and_random(sql: SqlAppends) -> None:
    ids = [uuid.UUID(sql.append()) for _ in range(20)]
    assert {(one.version, one.variant, one.int >> 80) for one in ids} == {
        (7, uuid.RFC_4122, START_MS)
    }
    assert len({one.int & (1 << 62) - 1 for one in ids}) == len(ids)
    assert {row["accepted_at_ms"] for row in sql.room.rows("").values()} == {START_MS}
    sql.room.at(2)
    assert uuid.UUID(sql.append()).int >> 80 == START_MS + 2000
