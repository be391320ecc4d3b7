"""Which events of requests are repeats, and what is counted and answered of them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from service.errors import InvalidJsonError
from service.identity.user import User
from service.observe.recorder import NullRecorder
from service.outbox.clock import wall_now_ms
from service.outbox.event import Event, Meta
from service.outbox.inngest_id import InngestIds
from service.outbox.keys import IdempotencyKey, Receipt
from service.web.intake.event_batch import (
    MAX_BATCH_BYTES,
    BatchPolicy,
    BatchRequest,
    EventBatches,
)

CRON = User("key", "cron")
NOW_MS = 1_795_559_419_447
WIRE = b'{"id":"mine","name":"a","ts":1700000000000}'  # as it is sent, too


class Intake:
    """Knows each key again."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.known: dict[str, int] = {}
        self.digests: list[bytes] = []
        self.calls = 0

    async def append_all(
        self, events: Sequence[Event], keys: Sequence[IdempotencyKey | None]
    ) -> Sequence[Receipt]:
        self.calls += 1
        return [self._stored(one, key) for one, key in zip(events, keys, strict=True)]

    def _stored(self, one: Event, key: IdempotencyKey | None) -> Receipt:
        seq = self.known.get(key.key) if key else None
        if seq is None:
            self.events.append(one)
            seq = len(self.events)
            if key:
                self.known[key.key] = seq
                self.digests.append(key.digest)
            return Receipt(one.id, seq, 0, InngestIds(bytes(6)))
        first = self.events[seq - 1]
        return Receipt(first.id, seq, 0, InngestIds(bytes(6)), replayed=True)


class Counts(NullRecorder):
    def __init__(self) -> None:
        self.counted: list[tuple[str, float, dict[str, str]]] = []

    def count(self, name: str, value: float = 1, /, **labels: str) -> None:
        self.counted.append((name, value, labels))


def batches(
    intake: Intake, recorder: NullRecorder | None = None, policy: BatchPolicy | None = None
) -> EventBatches:
    return EventBatches(intake, recorder or NullRecorder(), policy, lambda: NOW_MS)


async def test_only_what_was_new_is_counted_for_the_key() -> None:
    intake, recorder = Intake(), Counts()
    body = b'[{"name":"a","id":"1"},{"name":"a"},{"name":"a","id":"1"}]'
    receipts, error = await batches(intake, recorder).accept(BatchRequest(user=CRON, body=body))
    assert error is None
    assert [receipt.replayed for receipt in receipts] == [False, False, True]
    assert recorder.counted == [("accepted_by_key", 2, {"key": "cron"})]


@pytest.mark.parametrize("body", [b"", b"[]"])
async def test_an_empty_request_stores_and_counts_nothing(body: bytes) -> None:
    intake, recorder = Intake(), Counts()
    assert await batches(intake, recorder).accept(BatchRequest(user=CRON, body=body)) == ((), None)
    assert (intake.calls, recorder.counted) == (0, [])


async def test_an_event_is_accepted_now_and_goes_to_the_environment_of_the_request() -> None:
    intake = Intake()
    request = BatchRequest(user=CRON, body=b'{"name":"a"}', meta=Meta(environment="branch"))
    await batches(intake).accept(request)
    [event] = intake.events
    assert (event.accepted_at_ms, event.meta.environment, event.owner) == (
        NOW_MS,
        "branch",
        "key cron",
    )
    before = wall_now_ms()
    await EventBatches(intake, NullRecorder()).accept(request)
    assert before <= intake.events[1].accepted_at_ms <= wall_now_ms()


async def test_words_of_a_key_are_not_mistaken_for_each_other() -> None:
    intake = Intake()
    for name, client_id in (("a", "b\\u0000c"), ("a\\u0000b", "c"), ("ab", "c"), ("a", "bc")):
        body = f'{{"name":"{name}","id":"{client_id}"}}'.encode()
        await batches(intake).accept(BatchRequest(user=CRON, body=body))
    assert len(intake.events) == 4


async def test_a_marked_request_is_known_place_by_place() -> None:
    intake = Intake()
    body = b'[{"name":"a"},{"name":"a"},{"name":"a","id":"mine"}]'
    for _ in range(2):
        await batches(intake).accept(BatchRequest(user=CRON, body=body, mark="seed"))
    assert len(intake.events) == 3
    await batches(intake).accept(BatchRequest(user=CRON, body=b'{"name":"a"}'))
    assert len(intake.events) == 4


async def test_a_bad_request_says_so_and_stores_nothing() -> None:
    intake = Intake()
    for body in (b"1", b'[{"name":"a"},'):
        with pytest.raises(InvalidJsonError, match="not an event object or an array"):
            await batches(intake).accept(BatchRequest(user=CRON, body=body))
    assert intake.calls == 0


async def test_an_id_stands_for_any_content() -> None:
    intake = Intake()
    await batches(intake).accept(BatchRequest(user=CRON, body=WIRE))
    assert intake.digests == [bytes(32)]


def test_a_request_has_at_most_20_mib() -> None:
    assert MAX_BATCH_BYTES == 20_971_520
