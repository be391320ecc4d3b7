"""Events as they are encoded, stored and put in order, and owners who share their event ids."""

from __future__ import annotations

import contextlib
import json
import uuid
from datetime import UTC, datetime

import msgspec
import pytest
from structlog.testing import capture_logs

from inngest_outbox.errors import (
    IdempotencyKeyReusedError,
    InvalidFieldError,
    OutboxFullError,
    RefusedError,
    TooManyPendingError,
)
from inngest_outbox.identity.user import User
from inngest_outbox.outbox.event import (
    FIRST_TS_MS,
    LAST_TS_MS,
    MAX_EVENT_BYTES,
    Event,
    Meta,
    by_environment,
    encode_event,
)
from inngest_outbox.outbox.event_ids import named_apart
from inngest_outbox.outbox.inngest_id import InngestIds
from inngest_outbox.outbox.keys import Division, IdempotencyKey, KeyUse, Receipt, divide
from inngest_outbox.outbox.limits import _ALL_BYTES, _OWNER_BYTES, Limits
from inngest_outbox.outbox.storable import repaired, storable

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
    with capture_logs() as lines:
        assert [one.meta.wire_id for one in named_apart(events, {}, shared)] == ["a", second]
    taken = {"event": "event_id_taken", "log_level": "warning", "event_id": "cron"}
    told = {**taken, "owner": "key cron", "sent_as": "cron/a"}
    assert lines == ([] if second == "a" else [told])


OLD, NOW_IDS = InngestIds(b"earlie"), InngestIds(b"latest", 9, ((0, b"earlie"),))
DAY = 86_400.0


@pytest.mark.parametrize("digest", ["same", "earlier", "other"])
@pytest.mark.parametrize("is_aged", [None, False, True])
@pytest.mark.parametrize("age_ms", [10_000, 10_001])
@pytest.mark.parametrize("lifetime", [None, 10.0])
@pytest.mark.parametrize("stored", [False, True])
def test_a_used_key_is_replayed_refused_or_free_again(
    lifetime: float | None, age_ms: int, digest: str, *, stored: bool, is_aged: bool | None
) -> None:
    used = KeyUse("e-0", 3, NOW_MS - age_ms, digest.encode(), Meta("w"), stored=stored)
    sent, key = event("branch"), IdempotencyKey("k", b"same", lifetime, (b"earlier",))
    asked = list[tuple[int, float]]()

    def aged(seq: int, seconds: float) -> bool:
        asked.append((seq, seconds))
        return bool(is_aged)

    with contextlib.ExitStack() as raised:
        is_past = lifetime is not None and stored and age_ms > 10_000
        is_free = is_past and is_aged is not False
        if digest == "other" and not is_free:
            raised.enter_context(pytest.raises(IdempotencyKeyReusedError))
        done = divide(
            [sent, sent],
            [key, key],
            uses={("a", "k"): used},
            ids=NOW_IDS,
            next_seq=9,
            now_ms=NOW_MS,
            is_aged=None if is_aged is None else aged,
        )
        if is_free:
            new = Receipt("id", 9, NOW_MS, InngestIds(b"latest"), meta=sent.meta)
            again = msgspec.structs.replace(new, replayed=True)
            mine = KeyUse("id", 9, NOW_MS, b"same", sent.meta, stored=False)
            assert done == Division([new, again], [0], {("a", "k"): mine}, [3])
        else:
            first = Receipt("e-0", 3, used.accepted_at_ms, OLD, replayed=True, meta=Meta("w"))
            assert done == Division([first] * 2, [], {}, [])
    assert set(asked) == ({(3, 10.0)} if is_past and is_aged is not None else set())


def test_a_key_of_days_is_free_after_a_day_of_running() -> None:
    used = KeyUse("e-0", 3, NOW_MS - 10**10, b"same")
    key, asked = IdempotencyKey("k", b"same", 7 * DAY), list[float]()
    divide(
        [event()],
        [key],
        uses={("a", "k"): used},
        ids=OLD,
        next_seq=9,
        now_ms=NOW_MS,
        is_aged=lambda _, seconds: asked.append(seconds) or True,  # type: ignore[func-returns-value]
    )
    assert asked == [DAY]


LIMITS = Limits(10, 5, max_bytes=100, max_bytes_per_owner=50)


@pytest.mark.parametrize(
    ("limits", "owner", "everybody", "refusal"),
    [
        (LIMITS, (4, 49), (9, 99), None),
        (LIMITS, (5, 50), (10, 100), TooManyPendingError()),
        (LIMITS, (4, 50), (10, 100), OutboxFullError()),
        (LIMITS, (4, 50), (9, 100), TooManyPendingError(_OWNER_BYTES)),
        (LIMITS, (4, 49), (9, 100), OutboxFullError(_ALL_BYTES)),
        (Limits(10, 5), (4, 10**15), (9, 10**15), None),
        (Limits(10, 5, max_bytes=0), (0, 0), (0, 0), OutboxFullError(_ALL_BYTES)),
        (Limits(10, 5, max_bytes_per_owner=0), (0, 0), (0, 0), TooManyPendingError(_OWNER_BYTES)),
    ],
)
def test_the_first_limit_that_an_event_of_one_byte_would_pass_refuses_it(
    limits: Limits, owner: tuple[int, int], everybody: tuple[int, int], refusal: RefusedError | None
) -> None:
    if refusal is None:
        limits.check(owner, everybody, 1, 1)
        return
    with pytest.raises(type(refusal)) as refused:
        limits.check(owner, everybody, 1, 1)
    assert (str(refused.value), refused.value.retry_after_seconds) == (str(refusal), 5)
