"""All that an event may have, appended in SQL: taken and refused as at the service's own door."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from service.identity.user import User
from service.web.intake.incoming import BadEventError, read_events
from tests.support.postgres_room import START_MS
from tests.support.sql_appends import SqlAppends

MACHINE = User("database", "u-1")


def by_the_door(event: dict[str, Any]) -> dict[str, Any] | None:
    """What the door would send of the event; None when it refuses it."""
    try:
        [incoming] = read_events(json.dumps(event).encode(), MACHINE, START_MS)
    except BadEventError:
        return None
    assert incoming is not None
    return dict(json.loads(incoming.event.payload))


SESSIONS = {f"s-{number}": number for number in range(5)}
EVENTS: list[dict[str, Any]] = [
    {"name": "n" * 300},
    {"name": ""},
    {"name": "inngest/"},
    {"name": "inngest/x"},
    {"name": "INNGEST/x"},
    {"name": "\u0130nngest/x"},
    {"name": "inngest"},
    {"name": "inngest_x"},
    {"name": "x/inngest/x"},
    {"data": {"ü": ["ü", None, 1.5, -(2**70)]}},
    {"data": {"n": 10**308}},
    {"data": {"n": 10**309}},
    {"data": {"deep": [{"n": -(10**309)}]}},
    {"data": {"text": "1" * 400}},
    {"id": "order-1"},
    {"id": ""},
    {"id": "x" * 5000},
    {"ts": 1_700_000_000_000},
    {"ts": 0},
    {"ts": 315_532_799_999},
    {"ts": 4_102_444_800_001},
    {"ts": -1},
    {"v": "2026-01"},
    {"v": None},
    {"meta": {"sessions": SESSIONS, "other": 1}},
    {"meta": {"sessions": {**SESSIONS, "gone": None}, "propagated_sessions": {"a": "b"}}},
    {"meta": {"sessions": None}},
    {"meta": {"sessions": {"a": "b"}, "propagated_sessions": None}},
    {"meta": {}},
    {"meta": {"other": [1], "more": "text"}},
    {"meta": {"sessions": {**SESSIONS, "one": "more"}}},
    {"meta": {"sessions": {"a": ""}}},
    {"meta": {"sessions": {"": "a"}}},
    {"meta": {"sessions": {"k" * 129: "a"}}},
    {"meta": {"sessions": {"a": "ü" * 257}}},
    {"meta": {"sessions": {"a": True}}},
    {"meta": {"sessions": {"a": {}}}},
    {"meta": {"sessions": []}},
    {"meta": {"propagated_sessions": {"a": None}}},
    {"meta": {"propagated_sessions": {"a": True, "b": "c"}}},
    {"meta": {"propagated_sessions": {"k" * 129: "a"}}},
    {"meta": {"propagated_sessions": {str(number): "a" for number in range(6)}}},
]


@pytest.mark.parametrize("fields", EVENTS, ids=lambda fields: json.dumps(fields)[:40])
def test_an_event_is_taken_refused_and_sent_as_at_the_door(
    sql: SqlAppends, fields: dict[str, Any]
) -> None:
    wanted = by_the_door({"name": "app/saved", "data": {}, "v": "1", **fields})
    try:
        row = sql.stored(sql.append(**fields))
    except psycopg.errors.InvalidParameterValue:
        assert wanted is None
        return
    assert wanted is not None
    wire = json.loads(row["payload"])
    assert wire.pop("user") == {"id": "u-1", "email": None, "name": None}
    if not fields.get("id"):
        assert wire["id"] == row["event_id"]
        wire["id"] = wanted["id"]
    assert wire == wanted


def test_a_meta_of_null_is_an_empty_one(sql: SqlAppends) -> None:
    assert json.loads(sql.stored(sql.append(meta="null"))["payload"])["meta"] == {}


def test_fields_of_the_user_go_with_the_event(sql: SqlAppends) -> None:
    fields = {"user_email": "a@b", "user_name": "Ada", "user_fields": {"plan": "pro", "id": "no"}}
    wire = json.loads(sql.stored(sql.append(**fields))["payload"])
    assert wire["user"] == {"id": "u-1", "email": "a@b", "name": "Ada", "plan": "pro"}


def test_a_row_has_what_the_event_was_given(sql: SqlAppends) -> None:
    row = sql.stored(sql.append(id="w", environment="branch-x", trace="t"))
    assert (row["wire_id"], row["environment"], row["trace"]) == ("w", "branch-x", "t")
    assert row["name"] == "app/saved"
    row = sql.stored(sql.append())
    assert row.keys() == {
        *("seq", "accepted_at_ms", "event_id", "name", "owner", "user_id", "payload")
    }
