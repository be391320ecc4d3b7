"""What a call on PostgreSQL is answered from the rows that are there."""

from __future__ import annotations

from typing import Any

import pytest

from service.errors import IdempotencyKeyReusedError, OutboxUnavailableError
from service.outbox.event import Event, Meta
from service.outbox.inngest_id import InngestIds
from service.outbox.keys import IdempotencyKey, KeyUse
from service.outbox.postgres.appends import FIND_STORED
from service.outbox.postgres.stored import Stored, find_stored, receipts_of
from service.outbox.receipt import Receipt
from tests.support.postgres_room import made_call

IDS = InngestIds(b"abcdef")
ULID = "01HF7YAT00AAAAAAAAAAAAAAAA"
KEY = IdempotencyKey("k", b"1")


class Pool:
    def __init__(self, *rows: tuple[Any, ...]) -> None:
        self.rows = list(rows)
        self.asked: list[tuple[str, Any, dict[str, Any]]] = []

    async def run(self, statement: str, given: Any, **how: Any) -> list[tuple[Any, ...]]:
        self.asked.append((statement, given, how))
        return self.rows


def made(event_id: str, owner: str = "o") -> Event:
    return Event(event_id, "n", owner, "u", 5, b"{}")


async def test_rows_are_found_by_their_ids_and_keys() -> None:
    pool: Any = Pool(
        ("e-1", "o", "k", memoryview(b"1"), 7, 70, ULID, 99),
        ("e-2", "o", None, None, 8, 80, None, 99),
    )
    found = await find_stored(pool, [made("e-1"), made("e-2")], [KEY, None])
    one, two = KeyUse("e-1", 7, 70, b"1", Meta(moved_id=ULID)), KeyUse("e-2", 8, 80, b"")
    assert found == Stored({"e-1": one, "e-2": two}, {("o", "k"): one}, 99)
    given = {"ids": ["e-1", "e-2"], "owners": ["o"], "keys": ["k"]}
    assert pool.asked == [(FIND_STORED, given, {"replicated": True})]


async def test_one_row_is_found() -> None:
    pool: Any = Pool(("e-1", "o", None, None, 7, 70, None, 99))
    assert (await find_stored(pool, [made("e-1")], [None])).now_ms == 99


async def test_nothing_is_found_where_nothing_is() -> None:
    nowhere: Any = Pool()
    assert await find_stored(nowhere, [made("e-1")], [None]) == Stored()
    assert (Stored().by_id, Stored().uses) == ({}, {})


def answer(new: dict[str, int], stored: Stored, *keys: IdempotencyKey | None) -> Any:
    """What a call of the events `e-1`, `e-2`, … with these keys is answered."""
    events = [made(f"e-{number}") for number, _ in enumerate(keys, 1)]
    return receipts_of(made_call(*events, keys=list(keys)), new, stored, IDS)


def test_new_events_have_their_new_numbers() -> None:
    own = Stored({"e-1": KeyUse("e-1", 9, 90, b"")}, {("o", "k"): KeyUse("e-9", 9, 90, b"1")})
    new = {"e-1": 0, "e-2": 1}
    assert answer(new, own, KEY, None) == [Receipt("e-1", 0, 5, IDS), Receipt("e-2", 1, 5, IDS)]


def test_events_that_are_stored_already_have_their_numbers() -> None:
    stored = Stored({"e-1": KeyUse("e-1", 7, 70, b"")})
    assert answer({"e-2": 8}, stored, None, None) == [
        Receipt("e-1", 7, 70, IDS),
        Receipt("e-2", 8, 5, IDS),
    ]


def test_the_first_event_of_a_key_is_replayed() -> None:
    stored = Stored({}, {("o", "k"): KeyUse("e-9", 7, 70, b"1", Meta(moved_id=ULID))})
    wanted = Receipt("e-9", 7, 70, IDS, replayed=True, meta=Meta(moved_id=ULID))
    assert answer({}, stored, KEY) == [wanted]
    assert answer({}, Stored({}, {("other", "k"): stored.uses["o", "k"]}), KEY) != [wanted]


def test_a_key_that_was_used_for_something_else_is_told() -> None:
    stored = Stored({}, {("o", "k"): KeyUse("e-9", 7, 70, b"2")})
    assert isinstance(answer({"e-1": 1}, stored, None, KEY), IdempotencyKeyReusedError)


@pytest.mark.parametrize("key", [KEY, None])
def test_a_call_of_which_an_event_is_gone_may_try_again(key: IdempotencyKey | None) -> None:
    found = answer({"e-1": 1}, Stored(), None, key)
    assert isinstance(found, OutboxUnavailableError)
    assert found.retry_after_seconds == 1
