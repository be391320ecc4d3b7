"""All that an event may have, appended in SQL: taken and refused as at the service's own door."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from service.identity.user import User
from service.observe.recorder import NullRecorder
from service.outbox.incoming import BadEventError, read_events
from service.web.resources.event_batch import BatchRequest, EventBatches
from tests.support.storage import PostgresStorage, claim, claims_nothing, ids

MACHINE = User("database", "u-1")
DAY_MS = 24 * 3600 * 1000


@pytest.fixture
def connection(postgres_url: str) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    with psycopg.connect(postgres_url, row_factory=dict_row, autocommit=True) as opened:
        yield opened


def append(connection: psycopg.Connection[dict[str, Any]], **fields: object) -> str:
    """Append an event with these parameters; objects are JSON."""
    given = {"name": "app/saved", "data": {}, "user_id": "u-1", **fields}
    values = {key: Jsonb(one) if isinstance(one, dict) else one for key, one in given.items()}
    named = ", ".join(f"{key} => %({key})s" for key in given)
    [row] = connection.execute(f"SELECT outbox.append({named}) AS id", values).fetchall()
    return str(row["id"])


def stored(connection: psycopg.Connection[dict[str, Any]], event_id: str) -> dict[str, Any]:
    [row] = connection.execute("SELECT * FROM outbox WHERE event_id = %s", (event_id,)).fetchall()
    return row


def by_the_door(event: dict[str, Any]) -> dict[str, Any] | None:
    """What the door would send of the event; None when it refuses it."""
    try:
        [incoming] = read_events(json.dumps(event).encode(), MACHINE, int(time.time() * 1000))
    except BadEventError:
        return None
    return dict(json.loads(incoming.event.payload))


SESSIONS = {f"s-{number}": number for number in range(5)}
EVENTS: list[dict[str, Any]] = [
    {"name": "n" * 300},
    {"name": ""},
    {"name": "inngest/x"},
    {"name": "INNGEST/x"},
    {"name": "\u0130nngest/x"},
    {"name": "inngest"},
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
    {"meta": {}},
    {"meta": {"sessions": {**SESSIONS, "one": "more"}}},
    {"meta": {"sessions": {"a": ""}}},
    {"meta": {"sessions": {"": "a"}}},
    {"meta": {"sessions": {"k" * 129: "a"}}},
    {"meta": {"sessions": {"a": "ü" * 257}}},
    {"meta": {"sessions": {"a": True}}},
    {"meta": {"sessions": []}},
    {"meta": {"propagated_sessions": {"a": None}}},
    {"meta": {"propagated_sessions": {str(number): "a" for number in range(6)}}},
]


@pytest.mark.parametrize("fields", EVENTS, ids=lambda fields: json.dumps(fields)[:40])
def test_an_event_is_taken_refused_and_sent_as_at_the_door(
    connection: psycopg.Connection[dict[str, Any]], fields: dict[str, Any]
) -> None:
    wanted = by_the_door({"name": "app/saved", "data": {}, "v": "1", **fields})
    try:
        row = stored(connection, append(connection, **fields))
    except psycopg.errors.InvalidParameterValue:
        assert wanted is None
        return
    assert wanted is not None
    wire = json.loads(row["payload"])
    assert wire.pop("user") == {"id": "u-1", "email": None, "name": None}
    assert bool(wire["id"]) == bool(wanted["id"])
    for name in ("id", "ts"):
        if not fields.get(name):
            wire[name] = wanted[name]
    assert wire == wanted


def test_fields_of_the_user_go_with_the_event(
    connection: psycopg.Connection[dict[str, Any]],
) -> None:
    fields = {"user_email": "a@b", "user_fields": {"plan": "pro", "id": "no"}}
    wire = json.loads(stored(connection, append(connection, **fields))["payload"])
    assert wire["user"] == {"id": "u-1", "email": "a@b", "name": None, "plan": "pro"}


def test_an_event_goes_to_its_environment(
    connection: psycopg.Connection[dict[str, Any]],
) -> None:
    event_id = append(connection, environment="branch-x")
    assert stored(connection, event_id)["environment"] == "branch-x"
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="visible ASCII"):
        append(connection, environment="branch x")


async def test_an_id_means_the_same_event_here_and_at_the_door_for_a_day(
    connection: psycopg.Connection[dict[str, Any]], postgres_url: str
) -> None:
    async with PostgresStorage(postgres_url).open() as outbox:
        request = BatchRequest(user=MACHINE, body=b'{"name":"app/saved","id":"order-1"}')
        [receipt], _ = await EventBatches(outbox.intake, NullRecorder()).accept(request)
    assert append(connection, id="order-1", data={"a": 1}) == receipt.event_id
    assert append(connection, id="order-1", environment="branch") != receipt.event_id
    connection.execute(
        "UPDATE outbox SET accepted_at_ms = accepted_at_ms - %s WHERE event_id = %s",
        (DAY_MS + 1, receipt.event_id),
    )
    later = append(connection, id="order-1")
    assert later != receipt.event_id
    assert append(connection, id="order-1") == later


def test_an_id_beside_an_idempotency_key_is_refused(
    connection: psycopg.Connection[dict[str, Any]],
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="not both"):
        append(connection, id="order-1", idempotency_key="k-1")


async def test_an_event_waits_until_it_may_be_sent(
    connection: psycopg.Connection[dict[str, Any]], postgres_url: str
) -> None:
    now_ms = int(time.time() * 1000)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="send_at"):
        append(connection, send_at=-1)
    async with PostgresStorage(postgres_url).open() as outbox:
        with connection.transaction():
            late = append(connection, send_at=now_ms + DAY_MS)
            soon = append(connection, send_at=now_ms + 700)
            past = append(connection, send_at=now_ms - 1000)
        assert ids(await claim(outbox)) == [past]
        assert ids(await claim(outbox)) == [soon]
        assert await claims_nothing(outbox)
        row = await outbox.intake.find(late)
        assert row is not None
        assert row.due_in_seconds is not None
        assert row.due_in_seconds > DAY_MS / 1000 - 60
    assert not connection.execute("SELECT FROM outbox_held").fetchall()
