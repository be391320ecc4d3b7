"""Several events in one call are stored in one commit, or none is; keys that count for a while."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from inngest_outbox.errors import IdempotencyKeyReusedError
from inngest_outbox.outbox.event import Meta
from inngest_outbox.outbox.keys import IdempotencyKey
from inngest_outbox.outbox.model import Filter
from tests.support.calls import aged, key, pending, replayed
from tests.support.storage import Outbox, Storage, ask, claim, event, ids

pytestmark = pytest.mark.in_memory_too


def daily(name: str, digest: bytes = b"1") -> IdempotencyKey:
    return key(name, digest, lifetime_seconds=100)


async def test_the_events_of_a_call_are_pending_in_their_order(outbox: Outbox) -> None:
    """Whether they have keys or not."""
    for keys in ((None,) * 5, [key(name) for name in "dacbe"]):
        events = [msgspec.structs.replace(event(), meta=Meta(trace="00-abc")) for _ in keys]
        receipts = await outbox.intake.append_all(events, keys)
        assert [receipt.event_id for receipt in receipts] == [each.id for each in events]
        assert replayed(receipts) == [False] * 5
        batch = await claim(outbox)
        assert ids(batch) == [each.id for each in events]
        assert batch.payloads == b",".join(each.payload for each in events)
        assert {entry.meta.trace for entry in batch.entries} == {"00-abc"}


async def test_a_call_of_no_event_of_two_owners_or_with_a_key_missing_stores_nothing(
    outbox: Outbox,
) -> None:
    assert not await outbox.intake.append_all((), ())
    with pytest.raises(ValueError, match="one owner"):
        await outbox.intake.append_all([event("u-1"), event("u-2")], (None, None))
    with pytest.raises(ValueError, match="for each event"):
        await outbox.intake.append_all([event(), event()], [key("a")])
    assert await pending(outbox) == 0


async def test_calls_of_one_moment_are_each_stored_whole_large_ones_too(outbox: Outbox) -> None:
    calls = [[event(f"u-{n}") for _ in range(1 + n % 5)] for n in range(40)]
    large = [[event(size=1_000) for _ in range(1_200)] for _ in range(3)]
    answers = await asyncio.gather(
        *(outbox.intake.append_all(events, (None,) * len(events)) for events in calls),
        *(outbox.intake.append_all(one, [key(each.id) for each in one]) for one in large),
    )
    for events, receipts in zip(calls + large, answers, strict=True):
        assert [receipt.event_id for receipt in receipts] == [each.id for each in events]
    stored = [row.id for row in await outbox.inspector.rows(Filter(limit=10_000))]
    assert sorted(stored) == sorted(each.id for events in calls + large for each in events)


async def test_a_call_that_is_made_again_is_a_replay_of_the_whole(outbox: Outbox) -> None:
    """Its receipts have the ids under which Inngest gets the events."""
    keys = [key("a"), key("b"), key("c")]
    first, again = [await outbox.intake.append_all([event() for _ in keys], keys) for _ in range(2)]
    assert [receipt.event_id for receipt in again] == [receipt.event_id for receipt in first]
    assert (replayed(first), replayed(again)) == ([False] * 3, [True] * 3)
    assert await pending(outbox) == 3
    one, new, two = await outbox.intake.append_all(
        [event() for _ in keys], [key("c"), None, key("a")]
    )
    single = await outbox.intake.append(event(), key=key("b"))
    rows = [await outbox.intake.find(receipt.event_id) for receipt in (*first, new)]
    known = [row.inngest_id for row in rows if row]
    for receipts in ((*first, new), (two, single, one, new)):
        assert [receipt.inngest_id for receipt in receipts] == known
    assert len(set(known)) == 4


async def test_a_key_twice_in_one_call_is_a_replay_of_the_first(outbox: Outbox) -> None:
    events = [event() for _ in range(3)]
    receipts = await outbox.intake.append_all(events, [key("a"), key("a"), key("b")])
    assert replayed(receipts) == [False, True, False]
    assert receipts[1].event_id == events[0].id
    last = await outbox.intake.find(events[2].id)
    assert receipts[2].inngest_id == last.inngest_id
    assert await pending(outbox) == 2


async def test_two_digests_of_one_key_in_one_call_store_nothing(outbox: Outbox) -> None:
    with pytest.raises(IdempotencyKeyReusedError):
        await outbox.intake.append_all([event(), event()], [key("a"), key("a", b"2")])
    assert await pending(outbox) == 0
    await outbox.intake.append(event(), key=key("a", b"2"))


async def test_a_refused_call_leaves_those_of_the_same_moment_alone(outbox: Outbox) -> None:
    await outbox.intake.append(event(), key=key("used"))
    bad, good, single = [event(), event()], [event(), event()], event()
    answers = await asyncio.gather(
        outbox.intake.append_all(bad, [key("a"), key("used", b"2")]),
        outbox.intake.append_all(good, [key("a", b"3"), key("b")]),
        outbox.intake.append(single, key=key("c")),
        return_exceptions=True,
    )
    assert isinstance(answers[0], IdempotencyKeyReusedError)
    assert replayed(answers[1]) == [False, False]
    stored = ids(await claim(outbox))
    assert set(stored) >= {*(each.id for each in good), single.id}
    assert not {each.id for each in bad} & set(stored)


async def test_the_same_keys_in_calls_of_one_moment_store_each_event_once(outbox: Outbox) -> None:
    names = [key(f"k-{number}") for number in range(20)]
    orders = [names, names[::-1], names[7:] + names[:7], names[:10]]
    answers = await asyncio.gather(
        *(outbox.intake.append_all([event() for _ in order], order) for order in orders),
        *(outbox.intake.append(event(), key=name) for name in names),
    )
    found: dict[str, set[str]] = {}
    for order, receipts in zip(orders, answers, strict=False):
        for name, receipt in zip(order, receipts, strict=True):
            found.setdefault(name.key, set()).add(receipt.event_id)
    for name, receipt in zip(names, answers[len(orders) :], strict=True):
        found[name.key].add(receipt.event_id)
    assert {len(seen) for seen in found.values()} == {1}
    assert await pending(outbox) == len(names)


async def test_a_cancelled_call_is_stored_whole_or_not_at_all(outbox: Outbox) -> None:
    calls = [[event() for _ in range(3)] for _ in range(20)]
    tasks = [asyncio.create_task(outbox.intake.append_all(one, (None,) * 3)) for one in calls]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    stored = set(ids(await claim(outbox, ask(1000))))
    for number, events in enumerate(calls):
        there = {each.id for each in events} & stored
        assert len(there) in ((0, 3) if number % 2 == 0 else (3,))


async def test_what_a_call_stored_is_there_after_a_restart(storage: Storage) -> None:
    keys = [key("a"), None, key("b")]
    async with storage.open() as outbox:
        first = await outbox.intake.append_all([event() for _ in keys], keys)
    async with storage.open() as outbox:
        assert ids(await claim(outbox)) == [receipt.event_id for receipt in first]
        again = await outbox.intake.append_all([event(), event()], [key("b"), key("a")])
        assert [receipt.inngest_id for receipt in again] == [
            first[2].inngest_id,
            first[0].inngest_id,
        ]


async def test_within_its_lifetime_a_key_is_replayed_and_without_one_for_ever(
    outbox: Outbox,
) -> None:
    for seconds, used in ((50, daily("a")), (1_000_000, key("b"))):
        first = await outbox.intake.append(aged(seconds), key=used)
        again = await outbox.intake.append(event(), key=used)
        assert (again.event_id, again.replayed) == (first.event_id, True)
    receipts = await outbox.intake.append_all([aged(200), aged(200)], [daily("c"), daily("c")])
    assert replayed(receipts) == [False, True]  # it does not expire within a call


async def test_after_its_lifetime_a_key_takes_a_new_event_of_any_body(outbox: Outbox) -> None:
    first = await outbox.intake.append(aged(200), key=daily("a"))
    second = await outbox.intake.append(event(), key=daily("a"))
    third = await outbox.intake.append(event(), key=daily("a"))
    assert not second.replayed
    assert (third.event_id, third.replayed) == (second.event_id, True)
    assert ids(await claim(outbox)) == [first.event_id, second.event_id]
    await outbox.intake.append(aged(200), key=daily("b"))
    receipts = await outbox.intake.append_all([event(), event()], [key("c"), daily("b", b"2")])
    assert replayed(receipts) == [False, False]
    with pytest.raises(IdempotencyKeyReusedError):
        await outbox.intake.append(event(), key=daily("b"))


async def test_a_refused_call_takes_no_expired_key(outbox: Outbox) -> None:
    first = await outbox.intake.append(aged(200), key=daily("a"))
    await outbox.intake.append(event(), key=key("used"))
    with pytest.raises(IdempotencyKeyReusedError):
        await outbox.intake.append_all([event(), event()], [daily("a"), key("used", b"2")])
    again = await outbox.intake.append(event(), key=key("a"))
    assert (again.event_id, again.replayed) == (first.event_id, True)


async def test_an_expired_key_at_one_instant_takes_one_event(outbox: Outbox) -> None:
    await outbox.intake.append(aged(200), key=daily("a"))
    receipts = await asyncio.gather(
        *(outbox.intake.append(event(), key=daily("a")) for _ in range(10))
    )
    assert len({receipt.event_id for receipt in receipts}) == 1
    assert sum(not receipt.replayed for receipt in receipts) == 1
    assert await pending(outbox) == 2
