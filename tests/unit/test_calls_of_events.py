"""Events as they are encoded, stored and put in order, and owners who share their event ids."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime

import pytest

from service.errors import InvalidFieldError
from service.identity.user import User
from service.outbox.event import (
    FIRST_TS_MS,
    LAST_TS_MS,
    MAX_EVENT_BYTES,
    Event,
    Meta,
    by_environment,
    encode_event,
)
from service.outbox.event_ids import named_apart
from service.outbox.storable import repaired, storable

ADA = User("next-auth", "u-1", "ada@example.com", "Ada")
NOW_MS = 1_795_559_419_447


def event(environment: str | None = None) -> Event:
    return Event("id", "a/b", "a", "u-1", NOW_MS, b"{}", Meta(environment=environment))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a/b", "a/b"),
        ("a\x00b", "a\ufffdb"),
        ("\ud800x", "?x"),
        ("\u00e9\U0001f600", "\u00e9\U0001f600"),
    ],
)
def test_what_postgresql_cannot_store_is_replaced(text: str, kept: str) -> None:
    assert storable(text) == kept


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        (rb'"\ud83d\uDE00 \uDBFF\udfff"', rb'"\ud83d\uDE00 \uDBFF\udfff"'),
        (rb'"\ud83d \uDBFF \udc00 \uDFFF"', rb'"\ufffd \ufffd \ufffd \ufffd"'),
        (rb'"\ud83d\ud83d\udc00\udc00"', rb'"\ufffd\ud83d\udc00\ufffd"'),
        (rb'"\\ud83d \u00e9 \ud7ff \ue000 \n"', rb'"\\ud83d \u00e9 \ud7ff \ue000 \n"'),
        (b'"\xff\\udc00"', b'"\xef\xbf\xbd\\ufffd"'),
    ],
)
def test_json_keeps_all_that_is_unicode(raw: bytes, kept: bytes) -> None:
    assert repaired(raw) == kept


def test_events_for_one_environment_follow_each_other_in_their_order() -> None:
    calls = [[event(name)] for name in ("b", None, "a", "b", "a")]
    assert list(by_environment(calls)) == [1, 2, 4, 0, 3]


def test_an_event_is_encoded_as_inngest_reads_it() -> None:
    made = encode_event("a/b", {"x": 1}, ADA, NOW_MS)
    assert json.loads(made.payload) == {
        "id": made.id,
        "name": "a/b",
        "ts": NOW_MS,
        "v": "1",
        "user": {"id": "u-1", "email": "ada@example.com", "name": "Ada"},
        "data": {"x": 1},
    }
    assert (made.name, made.owner, made.user_id) == ("a/b", ADA.owner, "u-1")
    assert made.accepted_at_ms == NOW_MS
    assert uuid.UUID(made.id).version == 7
    assert encode_event("a/b", {}, ADA, NOW_MS).id != made.id


@pytest.mark.parametrize("more", [0, 1])
def test_an_event_has_at_most_3_mib(more: int) -> None:
    empty = len(encode_event("a/b", {"x": ""}, ADA, NOW_MS).payload)
    data = {"x": "y" * (MAX_EVENT_BYTES - empty + more)}
    if more:
        with pytest.raises(InvalidFieldError, match="larger than 3 MiB"):
            encode_event("a/b", data, ADA, NOW_MS)
    else:
        assert len(encode_event("a/b", data, ADA, NOW_MS).payload) == 3 * 1024 * 1024


def test_the_clock_is_between_1980_and_2100() -> None:
    first, last = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (1980, 2100))
    assert (first * 1000, last * 1000) == (FIRST_TS_MS, LAST_TS_MS)
    for good in (FIRST_TS_MS, LAST_TS_MS):
        assert encode_event("a/b", {}, ADA, good).accepted_at_ms == good
    for bad in (FIRST_TS_MS - 1, LAST_TS_MS + 1):
        with pytest.raises(ValueError, match="clock"):
            encode_event("a/b", {}, ADA, bad)


@pytest.mark.parametrize(
    ("shared", "second"),
    [
        ((), "cron/a"),
        (("key cron",), "cron/a"),
        (("key shop",), "cron/a"),
        (("key cron", "key shop"), "a"),
    ],
)
def test_owners_share_ids_where_both_are_named(shared: tuple[str, ...], second: str) -> None:
    events = [
        Event(name, "n", f"key {name}", name, 0, b"{}", Meta("a")) for name in ("shop", "cron")
    ]
    assert [one.meta.wire_id for one in named_apart(events, {}, shared)] == ["a", second]
