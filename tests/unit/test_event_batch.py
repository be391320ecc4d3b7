"""A request's events: stored together, known again when they are repeated, read in turns."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from service.errors import InvalidFieldError, InvalidJsonError
from service.identity.user import EventKeys, User
from service.observe.recorder import NullRecorder, Recorder
from service.outbox.clock import wall_now_ms
from service.outbox.event import Event, Meta
from service.outbox.inngest_id import ENVIRONMENT_HEADER, SEED_HEADER, InngestIds
from service.outbox.keys import IdempotencyKey, Receipt
from service.web.intake.event_batch import (
    MAX_BATCH_BYTES,
    BatchPolicy,
    BatchRequest,
    EventBatches,
)
from service.web.intake.inngest_intake import InngestIntake
from service.web.signin.auth import EventKeyAuth, RateLimit
from tests.support.figures import Figures
from tests.support.made_request import made_request

CRON = User("key", "cron")
NOW_MS = 1_795_559_419_447


class KeptIntake:
    """Keeps what it is given, and knows each key again; `hold` makes it wait."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.keys: list[IdempotencyKey | None] = []
        self.calls = 0
        self.hold = asyncio.Event()
        self.hold.set()
        self.waiting = 0

    async def append_all(
        self, events: Sequence[Event], keys: Sequence[IdempotencyKey | None]
    ) -> Sequence[Receipt]:
        self.calls += 1
        self.waiting += 1
        await self.hold.wait()
        self.waiting -= 1
        return [self._stored(event, key) for event, key in zip(events, keys, strict=True)]

    def _stored(self, event: Event, key: IdempotencyKey | None) -> Receipt:
        known = [one and one.key for one in self.keys]
        ids = InngestIds(bytes(6))
        if key and key.key in known:
            seq = known.index(key.key) + 1
            return Receipt(self.events[seq - 1].id, seq, 0, ids, replayed=True)
        self.events.append(event)
        self.keys.append(key)
        return Receipt(event.id, len(self.events), 0, ids)


def batches(intake: KeptIntake, recorder: Recorder | None = None) -> EventBatches:
    return EventBatches(intake, recorder or NullRecorder(), None, lambda: NOW_MS)


def request(body: bytes, **changes: object) -> BatchRequest:
    return BatchRequest(user=CRON, body=body, **changes)  # type: ignore[arg-type]


async def keys_of(body: bytes, **changes: object) -> list[IdempotencyKey | None]:
    intake = KeptIntake()
    await batches(intake).accept(request(body, **changes))
    return intake.keys


async def test_the_good_events_before_a_bad_one_are_stored_where_a_part_is_wanted() -> None:
    intake, figures = KeptIntake(), Figures()
    body = b'[{"name":"a"},{"name":"b"},{},{"name":"c"}]'
    receipts, error = await batches(intake, figures).accept(request(body, partly=True))
    assert [event.name for event in intake.events] == ["a", "b"]
    assert (len(receipts), error) == (2, "The event's name must be present")
    assert figures.got == [("count", "accepted_by_key", 2, ("key", "cron"))]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'[{"name":"a"},{}]', InvalidFieldError("Event 2: The event's name must be present.")),
        *(
            (body, InvalidJsonError("The body is not an event object or an array"))
            for body in (b"x", b"1", b'[{"name":"a"},')
        ),
    ],
)
async def test_else_one_bad_event_refuses_all(body: bytes, error: Exception) -> None:
    intake = KeptIntake()
    with pytest.raises(type(error), match=str(error)):
        await batches(intake).accept(request(body))
    assert intake.calls == 0


@pytest.mark.parametrize("body", [b"", b"[]"])
async def test_an_empty_request_stores_and_counts_nothing(body: bytes) -> None:
    intake, figures = KeptIntake(), Figures()
    assert await batches(intake, figures).accept(request(body)) == ((), None)
    assert (intake.calls, figures.got) == (0, [])


async def test_only_what_was_new_is_counted_for_the_key() -> None:
    intake, figures = KeptIntake(), Figures()
    body = b'[{"name":"a","id":"1"},{"name":"a"},{"name":"a","id":"1"}]'
    receipts, error = await batches(intake, figures).accept(request(body))
    assert error is None
    assert [receipt.replayed for receipt in receipts] == [False, False, True]
    assert figures.got == [("count", "accepted_by_key", 2, ("key", "cron"))]


async def test_an_event_is_accepted_now_and_goes_to_the_environment_of_the_request() -> None:
    intake = KeptIntake()
    one = request(b'{"name":"a"}', meta=Meta(environment="branch"))
    await batches(intake).accept(one)
    [event] = intake.events
    found = (event.accepted_at_ms, event.meta.environment, event.owner)
    assert found == (NOW_MS, "branch", "key cron")
    before = wall_now_ms()
    await EventBatches(intake, NullRecorder()).accept(one)
    assert before <= intake.events[1].accepted_at_ms <= wall_now_ms()


async def test_an_event_without_an_id_in_an_unmarked_request_is_always_new() -> None:
    assert await keys_of(b'{"name":"a"}') == [None]


async def test_an_id_means_the_same_event_whatever_else_it_says_for_a_day() -> None:
    [first] = await keys_of(b'{"name":"a","id":"1","data":{"x":1}}')
    [again] = await keys_of(b'{"name":"a","id":"1","data":{"x":2}}', mark="seed s")
    assert first == again
    assert first
    assert (first.lifetime_seconds, first.digest) == (24 * 3600, bytes(32))


@pytest.mark.parametrize(
    ("body", "environment"),
    [
        (b'{"name":"a","id":"2"}', None),
        (b'{"name":"b","id":"1"}', None),
        (b'{"name":"a","id":"1"}', "branch-x"),
    ],
)
async def test_another_id_name_or_environment_is_another_event(
    body: bytes, environment: str | None
) -> None:
    [first] = await keys_of(b'{"name":"a","id":"1"}')
    [other] = await keys_of(body, meta=Meta(environment=environment))
    assert first
    assert other
    assert first.key != other.key


async def test_words_of_a_key_are_not_mistaken_for_each_other() -> None:
    intake = KeptIntake()
    for name, client_id in (("a", "b\\u0000c"), ("a\\u0000b", "c"), ("ab", "c"), ("a", "bc")):
        await batches(intake).accept(request(f'{{"name":"{name}","id":"{client_id}"}}'.encode()))
    assert len(intake.events) == 4


async def test_a_mark_makes_each_place_of_a_request_known_again_with_its_content() -> None:
    body = b'[{"name":"a"},{"name":"a"}]'
    first = await keys_of(body, mark="seed s", mark_seconds=60.0)
    assert first == await keys_of(body, mark="seed s", mark_seconds=60.0)
    assert len({one.key for one in first if one}) == 2
    assert {one.lifetime_seconds for one in first if one} == {60.0}
    changed = await keys_of(b'[{"name":"a"},{"name":"b"}]', mark="seed s")
    digests = [(old.digest == new.digest) for old, new in zip(first, changed, strict=True)]  # type: ignore[union-attr]
    assert digests == [True, False]
    other = await keys_of(body, mark="seed t")
    assert not {one.key for one in first if one} & {one.key for one in other if one}


@pytest.mark.parametrize(
    ("seed", "lifetimes"),
    [("1,AAAAAAAAAAAAAAAAAAAAAA==", []), ("1,AAAAAAAAAAAAAA==", [86_400.0]), ("", [])],
)
async def test_a_seed_of_an_sdk_is_known_for_a_day(seed: str, lifetimes: list[float]) -> None:
    intake, keys = KeptIntake(), EventKeys({"k": "cron"})
    auth = EventKeyAuth(keys, None, RateLimit(None))  # type: ignore[arg-type]
    headers = {SEED_HEADER: seed} if seed else {}
    made = made_request(b'[{"name":"a"}]', headers, path="/e/k", match_info={"key": "k"})
    answer = await InngestIntake(auth, batches(intake), NullRecorder()).post(made)
    assert answer.status == 200
    assert [one.lifetime_seconds for one in intake.keys if one] == lifetimes


async def test_a_key_has_at_most_32_environments() -> None:
    auth = EventKeyAuth(EventKeys({"k": "cron"}), None, RateLimit(None))  # type: ignore[arg-type]
    intake = InngestIntake(auth, batches(KeptIntake()), NullRecorder())
    statuses = []
    for number in (*range(33), 0):
        headers = {ENVIRONMENT_HEADER: f"branch-{number}"}
        made = made_request(b'{"name":"a"}', headers, path="/e/k", match_info={"key": "k"})
        statuses.append((await intake.post(made)).status)
    assert statuses == [*[200] * 32, 400, 200]


async def turns_of_others(body: bytes, policy: BatchPolicy | None = None) -> int:
    """How often something else ran while `body` was read."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    await EventBatches(KeptIntake(), NullRecorder(), policy).accept(request(body))
    other.cancel()
    return turns


async def test_a_large_request_lets_others_run_between_its_turns() -> None:
    body = b"[" + b",".join([b'{"name":"a"}'] * 100) + b"]"
    assert await turns_of_others(body, BatchPolicy(turn_events=10)) >= 10
    assert await turns_of_others(body, BatchPolicy(turn_events=1000, turn_bytes=50)) >= 10


@pytest.mark.parametrize("value", [b"[]", b'{"a":[]}', b"1", b'"a"', b"1e5"])
async def test_a_large_event_lets_others_run_while_it_is_read(value: bytes) -> None:
    values = b",".join([value] * (2_000_000 // (len(value) + 1)))
    assert await turns_of_others(b'{"name":"a","data":{"x":[%b]}}' % values) >= 20


async def test_few_large_requests_are_worked_on_at_once_and_small_ones_pass_them() -> None:
    intake = KeptIntake()
    intake.hold.clear()
    policy = BatchPolicy(turn_bytes=100, large_at_once=2)
    batches = EventBatches(intake, NullRecorder(), policy)
    large = b'{"name":"%s"}' % (b"a" * 200)
    tasks = [asyncio.create_task(batches.accept(request(large))) for _ in range(5)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert intake.waiting == 2
    tasks.append(asyncio.create_task(batches.accept(request(b'{"name":"small"}'))))
    for _ in range(20):
        await asyncio.sleep(0)
    assert intake.waiting == 3
    intake.hold.set()
    await asyncio.gather(*tasks)
    assert len(intake.events) == 6


def test_a_request_has_at_most_20_mib() -> None:
    assert MAX_BATCH_BYTES == 20_971_520
