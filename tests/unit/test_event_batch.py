"""POST /e/{key} over a store in memory: what makes events repeats, their headers, their turns."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from inngest_outbox.encryption import Encryption
from inngest_outbox.errors import InvalidFieldError
from inngest_outbox.identity.user import EventKeys, User
from inngest_outbox.outbox.event import Event, Meta
from inngest_outbox.outbox.inngest_id import ENVIRONMENT_HEADER, SEED_HEADER
from inngest_outbox.outbox.keys import Digests, IdempotencyKey, Receipt, plain_digests
from inngest_outbox.web.intake.event_batch import BatchPolicy, BatchRequest, EventBatches
from inngest_outbox.web.intake.inngest_intake import InngestIntake
from inngest_outbox.web.intake.lenient_json import BadEventError
from inngest_outbox.web.signin.auth import EventKeyAuth, RateLimit
from tests.support.clock import Clock
from tests.support.figures import Figures
from tests.support.made_request import made_request
from tests.support.memory_outbox import MemoryOutbox

DAY_SECONDS = 86_400
SEED = {SEED_HEADER: "1795647589663,w+OubQ/DQDVz3w=="}
ONE = b'{"name":"a"}'


class Door:
    """The protocol for the key of `cron`. While `hold` is not set, the store waits."""

    def __init__(self, policy: BatchPolicy | None = None) -> None:
        self.clock, self.figures = Clock(1_795_559_419.0), Figures()
        self._outbox = MemoryOutbox(self.clock)
        self.hold = asyncio.Event()
        self.hold.set()
        self.waiting = 0
        self.digests: Digests = plain_digests
        self.batches = EventBatches(
            self,
            self.figures,
            policy,
            lambda: int(self.clock.now * 1000),
            digests=self._digests,
        )
        auth = EventKeyAuth(EventKeys({"k": "cron", "w": "web"}), None, RateLimit(None))  # type: ignore[arg-type]
        self._intake = InngestIntake(auth, self.batches, self.figures, lambda: None)

    @property
    def events(self) -> list[Event]:
        return [row.event for row in self._outbox.rows.by_seq.values()]

    def _digests(self, message: bytes) -> Sequence[bytes]:
        return self.digests(message)

    async def append_all(
        self, events: Sequence[Event], keys: Sequence[IdempotencyKey | None]
    ) -> Sequence[Receipt]:
        self.waiting += 1
        await self.hold.wait()
        self.waiting -= 1
        return await self._outbox.intake.append_all(events, keys)

    async def answer(
        self, body: bytes, headers: dict[str, str] | None = None, key: str = "k"
    ) -> dict[str, Any]:
        request = made_request(body, headers or {}, path=f"/e/{key}", match_info={"key": key})
        answer = await self._intake.post(request)
        found: dict[str, Any] = json.loads(answer.text or "")
        assert found["status"] == answer.status
        return found

    async def ids(self, body: bytes, headers: dict[str, str] | None = None) -> list[str]:
        """The ids of events that are taken."""
        answer = await self.answer(body, headers)
        assert answer["status"] == 200
        return list(answer["ids"])


@pytest.fixture
def door() -> Door:
    return Door()


async def test_only_what_was_new_is_counted_for_the_key(door: Door) -> None:
    first, _, again = await door.ids(
        b'[{"name":"a","id":"1"},{"name":"a"},{"name":"a","id":"1","data":{"x":1}}]'
    )
    assert first == again
    assert await door.ids(b"[]") == [""]
    assert (await door.answer(b'{"name":"a","id":"1"}', key="w"))["ids"] != [first]
    for new, key in ((2, "cron"), (1, "web")):
        assert door.figures.got.pop(0) == ("count", "accepted_by_key", new, ("key", key))
    assert door.figures.got == []


@pytest.mark.parametrize(("body", "headers"), [(b'{"name":"a","id":"1"}', {}), (ONE, SEED)])
async def test_an_id_and_a_seed_are_known_for_a_day(
    door: Door, body: bytes, headers: dict[str, str]
) -> None:
    first = await door.ids(body, headers)
    door.clock.now += DAY_SECONDS
    assert await door.ids(body, headers) == first
    door.clock.now += 1
    assert await door.ids(body, headers) != first


async def test_another_id_name_or_environment_is_another_event(door: Door) -> None:
    names = [("a", "1"), ("a", "2"), ("b", "1")]
    names += [("a", "b\0c"), ("a\0b", "c"), ("ab", "c"), ("a", "bc")]
    for environment in ("", "branch-x"):
        for name, client_id in names:
            body = json.dumps({"name": name, "id": client_id}).encode()
            await door.ids(body, {ENVIRONMENT_HEADER: environment})
    assert len(door.events) == 2 * len(names)


async def test_a_seed_makes_each_place_of_a_request_known_again(door: Door) -> None:
    body = b"[%b,%b]" % (ONE, ONE)
    first = await door.ids(body, SEED)
    assert await door.ids(body, SEED) == first
    short = {SEED_HEADER: "2,AAAAAAAAAAAAAA=="}
    other = await door.ids(body, short)
    assert await door.ids(body, short) == other
    assert len({*first, *other}) == len(door.events) == 4
    named = {ENVIRONMENT_HEADER: "branch-x", "traceparent": TRACE}
    await door.ids(b'{"name":"b"}', {**SEED, **named})  # another event under a used seed
    assert door.events[-1].meta == Meta(wire_id="", environment="branch-x", trace=TRACE)


@pytest.mark.parametrize("partly", [False, True])
async def test_an_event_that_can_not_be_encrypted_is_a_bad_one(door: Door, *, partly: bool) -> None:
    def seal(event: Event) -> Event:
        if event.name == "large":
            raise BadEventError("It is too large")
        return event

    batches = EventBatches(door, door.figures, seal=seal)
    body = b'[{"name":"a"},{"name":"large"},{"name":"b"}]'
    request = BatchRequest(user=User("key", "cron"), body=body, partly=partly)
    if partly:
        receipts, error = await batches.accept(request)
        assert (len(receipts), error) == (1, "It is too large")
    else:
        with pytest.raises(InvalidFieldError, match=r"^Event 2: It is too large\.$"):
            await batches.accept(request)
    assert [one.name for one in door.events] == ["a"] * partly


async def test_a_request_is_known_again_after_a_change_of_the_secret(door: Door) -> None:
    request = BatchRequest(user=User("key", "cron"), body=b"[%b,%b]" % (ONE, ONE), mark="k-1")
    found = []
    for secrets in (["the-first-secret"], ["the-second-secret", "the-first-secret"]):
        door.digests = Encryption(secrets).digests
        receipts, _ = await door.batches.accept(request)
        found.append([one.event_id for one in receipts])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("branch-x", "branch-x"),
        ("two words", "two words"),
        ("gr\u00fcn", "gr\u00fcn"),
        ("x" * 255, "x" * 255),
        ("", None),
    ],
)
async def test_events_go_to_the_environment_that_is_named(
    door: Door, sent: str, name: str | None
) -> None:
    await door.ids(ONE, {ENVIRONMENT_HEADER: sent})
    assert [one.meta.environment for one in door.events] == [name]


@pytest.mark.parametrize("name", ["x" * 256, "a\tb"])
async def test_an_environment_that_can_t_be_shown_is_refused(door: Door, name: str) -> None:
    answer = await door.answer(ONE, {ENVIRONMENT_HEADER: name})
    error = f"{ENVIRONMENT_HEADER} is not a name in printable characters."
    assert (answer, door.events) == ({"ids": [""], "status": 400, "error": error}, [])


async def test_a_key_has_32_environments(door: Door) -> None:
    for number in range(32):
        await door.ids(ONE, {ENVIRONMENT_HEADER: f"branch-{number}"})
    refused = await door.answer(ONE, {ENVIRONMENT_HEADER: "one more"})
    assert refused["status"] == 400
    assert "at most 32 environments" in refused["error"]
    await door.ids(ONE, {ENVIRONMENT_HEADER: "branch-7"})
    assert (await door.answer(ONE, {ENVIRONMENT_HEADER: "one more"}, "w"))["status"] == 200


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (TRACE, TRACE),
        *(("01" + TRACE[2:], None), (TRACE[:35].upper() + TRACE[35:], None), ("x", None)),
        *((f"00-{'0' * 32}{TRACE[35:]}", None), (f"{TRACE[:36]}{'0' * 16}-01", None)),
    ],
)
async def test_the_trace_of_a_request_is_that_of_its_events(
    door: Door, sent: str, kept: str | None
) -> None:
    await door.ids(ONE, {"traceparent": sent})
    assert [(one.meta.trace, one.meta.wire_id) for one in door.events] == [(kept, "")]


async def turns_of_others(body: bytes, policy: BatchPolicy | None = None) -> int:
    """How often something else ran while `body` was read."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    await Door(policy).ids(body)
    other.cancel()
    return turns


async def test_a_large_request_lets_others_run_between_its_turns() -> None:
    assert await turns_of_others(b"[" + b",".join([ONE] * 1000) + b"]") >= 10
    body = b"[" + b",".join([ONE] * 100) + b"]"
    assert await turns_of_others(body, BatchPolicy(turn_events=10)) >= 10
    assert await turns_of_others(body, BatchPolicy(turn_events=1000, turn_bytes=50)) >= 10


@pytest.mark.parametrize("value", [b"[]", b'{"a":[]}', b"1", b'"a"', b"1e5"])
async def test_a_large_event_lets_others_run_while_it_is_read(value: bytes) -> None:
    values = b",".join([value] * (1_000_000 // (len(value) + 1)))
    assert await turns_of_others(b'{"name":"a","data":{"x":[%b]}}' % values) >= 10


async def test_few_large_requests_are_worked_on_at_once_and_small_ones_pass_them() -> None:
    door = Door(BatchPolicy(turn_bytes=100))
    door.hold.clear()
    large = b'{"name":"%s"}' % (b"a" * 200)
    tasks = [asyncio.create_task(door.ids(large)) for _ in range(5)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert door.waiting == 2
    tasks.append(asyncio.create_task(door.ids(ONE)))
    for _ in range(20):
        await asyncio.sleep(0)
    assert door.waiting == 3
    door.hold.set()
    await asyncio.gather(*tasks)
    assert len(door.events) == 6
