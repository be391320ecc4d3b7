"""An append stores once by its key; what a client sends is stored whole, whatever its names."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from inngest_outbox.errors import IdempotencyKeyReusedError, OutboxFullError, TooManyPendingError
from inngest_outbox.identity.user import User
from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.outbox.keys import IdempotencyKey, Receipt
from inngest_outbox.outbox.model import Filter, State
from inngest_outbox.web.intake.event_batch import BatchRequest, EventBatches
from inngest_outbox.web.intake.incoming import MAX_NAME_CHARS
from tests.support.fuzzed_events import fuzzed_bodies
from tests.support.posting import can_append
from tests.support.storage import (
    Outbox,
    Storage,
    append_all,
    ask,
    claim,
    deliver,
    event,
    eventually,
    ids,
)

KEY = IdempotencyKey("k-1", b"1" * 32)
SAME_KEY_OTHER_BODY = IdempotencyKey("k-1", b"2" * 32)


async def test_an_appended_event_is_found_pending(outbox: Outbox) -> None:
    sent = event()
    receipt = await outbox.intake.append(sent)
    row = await outbox.intake.find(sent.id)
    assert receipt.event_id == sent.id
    assert not receipt.replayed
    assert (row.id, row.name, row.user_id) == (sent.id, sent.name, sent.user_id)
    assert row.state is State.PENDING
    assert (row.attempts, row.sends, row.isolated) == (0, 0, False)
    assert row.accepted_at_ms == sent.accepted_at_ms
    assert (row.first_sent_at_ms, row.settled_at_ms, row.lease_in_seconds) == (None, None, None)
    assert row.due_in_seconds == 0
    assert (row.reason, row.detail, row.history) == (None, None, ())
    assert row.payload_bytes == len(sent.payload)


async def test_an_id_that_was_never_appended_is_not_found(outbox: Outbox) -> None:
    assert await outbox.intake.find("nothing") is None
    assert await outbox.intake.find("nul\x00byte") is None
    assert await outbox.inspector.payload("nothing") is None


async def test_the_stored_bytes_are_the_appended_bytes(outbox: Outbox) -> None:
    small, large = event(), event(size=300_000)
    await outbox.intake.append(small)
    await outbox.intake.append(large)
    assert await outbox.inspector.payload(small.id) == small.payload
    assert await outbox.inspector.payload(large.id) == large.payload
    batch = await claim(outbox)
    assert batch.payloads == small.payload + b"," + large.payload


async def test_an_event_keeps_its_words_and_its_user_whatever_its_owner(outbox: Outbox) -> None:
    """Also beyond ASCII."""
    for number, user_id in enumerate(("u-1", "dev u-1", "", "a u-1", "ada", "ü-🦊")):
        sent = msgspec.structs.replace(
            event(name="documents/überall"), owner="dev u-1", user_id=user_id
        )
        await outbox.intake.append(sent, key=IdempotencyKey(f"k~!{number}", b"x" * 32))
        row = await outbox.intake.find(sent.id)
        [entry] = (await claim(outbox)).entries
        assert (row.name, row.owner) == ("documents/überall", "dev u-1")
        assert (row.user_id, entry.user_id) == (user_id, user_id)


async def test_a_key_used_again_gives_the_first_receipt_and_stores_nothing(outbox: Outbox) -> None:
    """For another body it is refused, and to another user it is free."""
    first, second, theirs = event(), event(), event("u-2")
    await outbox.intake.append(first, key=KEY)
    receipt = await outbox.intake.append(second, key=KEY)
    assert (receipt.event_id, receipt.replayed) == (first.id, True)
    assert await outbox.intake.find(second.id) is None
    with pytest.raises(IdempotencyKeyReusedError):
        await outbox.intake.append(event(), key=SAME_KEY_OTHER_BODY)
    receipt = await outbox.intake.append(theirs, key=SAME_KEY_OTHER_BODY)
    assert (receipt.event_id, receipt.replayed) == (theirs.id, False)
    assert (await outbox.inspector.stats()).pending == 2


async def test_one_key_at_one_instant_stores_one_event(outbox: Outbox) -> None:
    events = [event() for _ in range(20)]
    receipts = await asyncio.gather(*(outbox.intake.append(each, key=KEY) for each in events))
    assert len({receipt.event_id for receipt in receipts}) == 1
    assert sum(not receipt.replayed for receipt in receipts) == 1
    answers = await asyncio.gather(
        *(
            outbox.intake.append(event(), key=IdempotencyKey("k-2", one * 32))
            for one in (b"1", b"2")
        ),
        return_exceptions=True,
    )
    assert {type(answer) for answer in answers} == {IdempotencyKeyReusedError, Receipt}
    assert (await outbox.inspector.stats()).pending == 2


async def test_a_key_is_remembered_after_a_restart_and_after_delivery(storage: Storage) -> None:
    first = event()
    async with storage.open() as outbox:
        await outbox.intake.append(first, key=KEY)
        await deliver(outbox, await claim(outbox))
    async with storage.open() as outbox:
        receipt = await outbox.intake.append(event(), key=KEY)
        assert receipt.event_id == first.id
        assert receipt.replayed
        with pytest.raises(IdempotencyKeyReusedError):
            await outbox.intake.append(event(), key=SAME_KEY_OTHER_BODY)


async def test_a_key_is_free_again_when_its_row_is_gone(outbox: Outbox) -> None:
    await outbox.intake.append(event(), key=KEY)
    await deliver(outbox, await claim(outbox))
    await outbox.repairs.purge(older_than_seconds=-1, actor="test")
    second = event()
    receipt = await outbox.intake.append(second, key=SAME_KEY_OTHER_BODY)
    assert receipt.event_id == second.id


async def test_a_user_with_too_many_waiting_is_refused_and_others_are_not(storage: Storage) -> None:
    """Also after a restart."""
    async with storage.open(max_pending_per_user=3) as outbox:
        await append_all(outbox, 3, "u-1")
        refused = event("u-1")
        with pytest.raises(TooManyPendingError) as error:
            await outbox.intake.append(refused)
        assert error.value.retry_after_seconds
        assert await outbox.intake.find(refused.id) is None
        await outbox.intake.append(event("u-2"))
    async with storage.open(max_pending_per_user=3) as outbox:
        await eventually(lambda: can_append(outbox), lambda stored: not stored)


async def test_a_full_outbox_refuses_everybody(storage: Storage) -> None:
    async with storage.open(max_pending=3) as outbox:
        for user in ("u-1", "u-2", "u-3"):
            await outbox.intake.append(event(user))
        with pytest.raises(OutboxFullError) as error:
            await outbox.intake.append(event("u-4"))
        assert error.value.retry_after_seconds


async def test_a_used_key_is_answered_also_when_the_outbox_is_full(storage: Storage) -> None:
    async with storage.open(max_pending=1, max_pending_per_user=1) as outbox:
        first = event()
        await outbox.intake.append(first, key=KEY)
        assert (await outbox.intake.append(event(), key=KEY)).event_id == first.id
        with pytest.raises(IdempotencyKeyReusedError):
            await outbox.intake.append(event(), key=SAME_KEY_OTHER_BODY)
        with pytest.raises((TooManyPendingError, OutboxFullError)):
            await outbox.intake.append(event(), key=IdempotencyKey("k-2", b"1" * 32))


@pytest.mark.parametrize(
    ("limits", "fitting"), [({"max_pending_per_user": 10}, 10), ({"max_bytes_per_user": 3000}, 3)]
)
async def test_a_burst_at_one_instant_stays_within_the_limit(
    storage: Storage, limits: dict[str, int], fitting: int
) -> None:
    async with storage.open(**limits) as outbox:
        answers = await asyncio.gather(
            *(outbox.intake.append(event(size=1000)) for _ in range(50)), return_exceptions=True
        )
        assert sum(isinstance(answer, TooManyPendingError) for answer in answers) == 50 - fitting
        assert (await outbox.inspector.stats()).pending == fitting


async def test_delivery_makes_room_again(storage: Storage) -> None:
    async with storage.open(max_pending=5, max_pending_per_user=2) as outbox:
        await append_all(outbox, 2)
        batch = await claim(outbox)
        with pytest.raises(TooManyPendingError):
            await outbox.intake.append(event())
        await deliver(outbox, batch)

        await eventually(lambda: can_append(outbox))


async def test_cancelled_appends_are_stored_once_or_not_at_all(outbox: Outbox) -> None:
    events = [event() for _ in range(30)]
    appends = [asyncio.create_task(outbox.intake.append(each)) for each in events]
    await asyncio.sleep(0)
    for append in appends[::2]:
        append.cancel()
    answers = await asyncio.gather(*appends, return_exceptions=True)
    stored = ids(await claim(outbox, ask(1000)))
    assert len(stored) == len(set(stored))
    answered = {answer.event_id for answer in answers if not isinstance(answer, BaseException)}
    assert answered <= set(stored) <= {each.id for each in events}
    assert len(answered) >= 15


CRON = User("key", "cron")


async def test_all_good_events_of_fuzzed_requests_are_stored(outbox: Outbox) -> None:
    batches = EventBatches(outbox.intake, NullRecorder())
    ids: set[str] = set()
    for number, body in enumerate(fuzzed_bodies(3, 300)):
        request = BatchRequest(
            user=CRON, body=body, mark=f"seed {number}", mark_seconds=60, partly=True
        )
        receipts, _ = await batches.accept(request)
        ids |= {receipt.inngest_id for receipt in receipts}
    rows = await outbox.inspector.rows(Filter(limit=1000))
    assert {row.inngest_id for row in rows} == ids
    assert len(rows) > 50


async def test_texts_that_no_column_takes_as_they_are_do_no_harm(outbox: Outbox) -> None:
    batches = EventBatches(outbox.intake, NullRecorder())
    body = b'[{"name":"a\\u0000b","id":"i\\u0000","data":{"x":"\\u0000"}},{"name":"%s","id":"%s"}]'
    long = "".join(chr(0x4E00 + place) for place in range(MAX_NAME_CHARS))  # no index takes 12 KiB
    receipts, error = await batches.accept(
        BatchRequest(user=CRON, body=body % (long.encode(), long[::-1].encode()))
    )
    assert (len(receipts), error) == (2, None)
    rows = await outbox.inspector.rows(Filter(owner=CRON.owner))
    assert [(len(row.name), len(row.meta.wire_id or "")) for row in rows] == [
        (MAX_NAME_CHARS, MAX_NAME_CHARS),
        (3, 2),
    ]
    for row in rows:
        payload = await outbox.inspector.payload(row.id)
        assert payload
        assert (b"\\u0000" in payload) == (len(row.name) == 3)
