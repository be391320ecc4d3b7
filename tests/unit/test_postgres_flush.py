"""What becomes of the callers of a batch, and what the rest of the service is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from service.errors import (
    IdempotencyKeyReusedError,
    InvalidFieldError,
    OutboxUnavailableError,
    ServiceError,
)
from service.outbox.inngest_id import InngestIds
from service.outbox.keys import IdempotencyKey
from service.outbox.postgres.appends import APPEND, FIND_STORED, Append
from service.outbox.postgres.express import ExpressRows
from service.outbox.postgres.flush import PostgresFlush, fail
from service.outbox.postgres.timings import PoolTimings
from tests.support.appends import call
from tests.support.storage import event

KEY = IdempotencyKey("k", b"1")
EARLIER = event()


class Database:
    """Stores all events but those of `bad` owners; `known` are the rows that are there."""

    def __init__(self) -> None:
        self.timings = PoolTimings()
        self.bad: set[str] = set()
        self.fault: BaseException | None = None
        self.known: list[tuple[Any, ...]] = []
        self.stored: list[list[str]] = []
        self.asked: list[dict[str, Any]] = []
        self.options: list[dict[str, Any]] = []

    async def run(self, statement: str, given: dict[str, Any], **options: Any) -> list[Any]:
        if statement == FIND_STORED:
            self.asked.append(given)
            return self.known
        assert statement == APPEND
        self.options.append(options)
        if self.fault:
            raise self.fault
        if self.bad.intersection(given["owners"]):
            raise InvalidFieldError("a character")
        there = {row[2] for row in self.known if row[2] is not None}
        ids = [
            one for one, key in zip(given["ids"], given["keys"], strict=True) if key not in there
        ]
        self.stored.append(ids)
        return [(one, seq, 77) for seq, one in enumerate(ids, 1)]


class Told:
    """Stands for the recorder and the wake-up."""

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()
        self.observed: dict[str, list[float]] = {}
        self.wakes = 0

    def count(self, name: str, by: int) -> None:
        self.counted[name] += by

    def observe(self, name: str, value: float) -> None:
        self.observed.setdefault(name, []).append(value)

    def rows_are_due(self) -> None:
        self.wakes += 1


class Flush:
    def __init__(self) -> None:
        self.database, self.told, self.express = Database(), Told(), ExpressRows()
        self.express.may_wait = False
        given: Any = (self.database, self.told, self.express, self.told)
        self._flush = PostgresFlush(*given, ids=lambda: InngestIds(b"123456"))

    async def warm_up(self, flushes: int) -> None:
        await self._flush.warm_up(flushes)

    async def store(self, *batch: Append) -> list[Any]:
        """What each call gets: the seqs of its events, or its error."""
        await self._flush.store(batch)
        return [_result(one) for one in batch]


def _result(one: Append) -> Any:
    error = one.done.exception()
    return error or [receipt.seq for receipt in one.done.result().receipts]


@pytest.fixture
def flush() -> Flush:
    return Flush()


async def test_each_call_gets_its_receipts_and_the_transaction_and_claims_wake(
    flush: Flush,
) -> None:
    batch = call(event("a"), event("a")), call(event("b"))
    assert await flush.store(*batch) == [[1, 2], [3]]
    assert {one.done.result().transaction for one in batch} == {77}
    assert flush.told.wakes == 1
    assert flush.told.counted == {"accepted": 3}
    assert flush.told.observed["group_events"] == [3]
    assert 0 <= flush.told.observed["commit_seconds"][0] < 60
    assert flush.database.asked == []
    assert not flush.express.may_wait


async def test_nothing_is_asked_for_no_call(flush: Flush) -> None:
    assert await flush.store() == []
    assert flush.database.stored == []
    assert flush.told.wakes == 0


async def test_a_statement_may_run_again_and_ends_with_the_first_caller_s_patience(
    flush: Flush,
) -> None:
    await flush.store(call(within_seconds=9.0), call(within_seconds=4.0))
    await flush.store(call(within_seconds=-5.0))
    first, late = flush.database.options
    assert first["repeat_with"] == {"repeated": True}
    assert first["replicated"] is True
    assert 3.0 < first["within_seconds"] <= 4.0
    assert late["within_seconds"] == 0.05


@pytest.mark.parametrize("fault", [None, OutboxUnavailableError()])
async def test_a_flush_warms_up_with_statements_that_store_nothing(
    flush: Flush, fault: Exception | None
) -> None:
    flush.database.fault = fault
    await flush.warm_up(2)
    assert flush.database.options == [{"within_seconds": 10.0}] * 2
    assert flush.database.stored == ([] if fault else [[], []])
    assert flush.told.wakes == 0


async def test_an_express_call_makes_claims_look_for_express_rows(flush: Flush) -> None:
    await flush.store(call(), call(express=True))
    assert flush.express.may_wait


@pytest.mark.parametrize("place", range(5))
async def test_a_bad_call_fails_alone(flush: Flush, place: int) -> None:
    flush.database.bad = {"bad"}
    batch = [call(event("bad" if at == place else "good")) for at in range(5)]
    results = await flush.store(*batch)
    assert isinstance(results.pop(place), InvalidFieldError)
    assert all(isinstance(one, list) for one in results)
    assert flush.told.counted == {"accepted": 4}


async def test_every_call_fails_where_the_database_is_away(flush: Flush) -> None:
    flush.database.fault = OutboxUnavailableError()
    for result in await flush.store(call(), call()):
        assert isinstance(result, OutboxUnavailableError)
        assert result.__cause__ is flush.database.fault
    assert flush.told.wakes == 0


async def test_no_call_is_left_without_an_answer_by_a_bug(flush: Flush) -> None:
    flush.database.fault = RuntimeError()
    one = call()
    with pytest.raises(RuntimeError):
        await flush.store(one)
    assert isinstance(_result(one), OutboxUnavailableError)


async def test_callers_that_left_are_passed_over(flush: Flush) -> None:
    gone, other = call(), call()
    gone.done.cancel()
    await flush._flush.store([gone, other])
    assert _result(other) == [2]
    fail([gone, other])
    assert _result(other) == [2]


def row_of(key: str, digest: bytes) -> tuple[Any, ...]:
    return (EARLIER.id, "u-1", key, digest, 5, EARLIER.accepted_at_ms, None, 10**13)


@pytest.mark.parametrize(
    ("digest", "wanted"), [(b"1", [5]), (b"2", IdempotencyKeyReusedError)], ids=["same", "other"]
)
async def test_a_key_that_is_there_gives_its_event_again_or_an_error(
    flush: Flush, digest: bytes, wanted: list[int] | type[ServiceError]
) -> None:
    flush.database.known = [row_of("k", digest)]
    posts = event(), event()
    fresh, again = await flush.store(call(posts[0]), call(posts[1], keys=[KEY]))
    assert fresh == [1]
    assert again == wanted or type(again) is wanted
    asked = {"ids": [posts[1].id], "owners": ["u-1"], "keys": ["k"]}
    assert flush.database.asked == [asked]
    assert flush.told.counted == {"accepted": 1}


async def test_nothing_new_is_stored_by_a_repetition(flush: Flush) -> None:
    flush.database.known = [row_of("k", b"1")]
    one = call(event(), keys=[KEY])
    assert await flush.store(one) == [[5]]
    assert one.done.result().transaction is None
    assert one.done.result().receipts[0].replayed
    assert flush.told.counted == {"accepted": 0}


async def test_what_is_neither_new_nor_there_may_be_tried_again(flush: Flush) -> None:
    found: Sequence[tuple[Any, ...]] = [row_of("k", b"1")]
    flush.database.known = list(found)

    async def run(statement: str, given: dict[str, Any], **options: Any) -> list[Any]:
        rows = await Database.run(flush.database, statement, given, **options)
        return [] if statement == FIND_STORED else rows

    flush.database.run = run  # type: ignore[method-assign]
    [result] = await flush.store(call(event(), keys=[KEY]))
    assert isinstance(result, OutboxUnavailableError)
