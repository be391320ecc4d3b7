"""A neighbour's answer: fetched within bounds, once for all who wait; a failure is remembered."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
import msgspec
import pytest

from inngest_outbox.errors import ProviderUnavailableError
from inngest_outbox.identity.remote_answer import SharedValue, decode, fetch


class Neighbour:
    """Answers with how often it was asked, once `answers` is set."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = asyncio.Event()
        self.is_down = False

    async def __call__(self) -> int:
        self.asked += 1
        await self.answers.wait()
        if self.is_down:
            raise ProviderUnavailableError
        return self.asked


@pytest.fixture
def neighbour() -> Neighbour:
    return Neighbour()


@pytest.fixture
def shared(neighbour, clock) -> SharedValue[int]:
    return SharedValue(neighbour, fresh_seconds=60, clock=clock)


async def waiters(shared: SharedValue[int], count: int) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(shared.get()) for _ in range(count)]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


async def test_all_who_wait_share_one_request_and_one_that_leaves_takes_nothing_from_them(
    shared, neighbour
):
    gone, *stay = await waiters(shared, 50)
    gone.cancel()
    neighbour.answers.set()
    assert await asyncio.gather(*stay) == [1] * 49
    assert neighbour.asked == 1


async def test_a_failure_is_everybodys(shared, neighbour):
    neighbour.is_down = True
    tasks = await waiters(shared, 3)
    neighbour.answers.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in found] == [ProviderUnavailableError] * 3
    assert neighbour.asked == 1


async def test_a_value_is_fresh_up_to_its_age(shared, neighbour, clock):
    neighbour.answers.set()
    assert shared.age_seconds == float("inf")
    assert await shared.get() == 1
    clock.now += 60
    assert (await shared.get(), shared.age_seconds) == (1, 60)
    clock.now += 0.1
    assert (await shared.get(), shared.age_seconds) == (2, 0)


@pytest.mark.parametrize("had", [0, 1])  # values, which are too old now
async def test_a_failure_is_told_to_others_in_its_own_words_for_five_seconds(clock, had):
    asked = 0

    async def fails() -> int:
        nonlocal asked
        asked += 1
        if asked > had:
            raise ProviderUnavailableError("It is away.")
        return asked

    shared = SharedValue(fails, fresh_seconds=60, clock=clock)
    if had:
        assert await shared.get() == 1
    for later, asked_then in ((61, 1), (65.9, 1), (66, 2)):
        clock.now = 1000.0 + later
        with pytest.raises(ProviderUnavailableError, match="It is away"):
            await shared.get()
        assert asked == had + asked_then


async def test_a_value_that_is_still_fresh_counts_after_a_failure_to_renew_it(
    shared, neighbour, clock
):
    neighbour.answers.set()
    assert await shared.get() == 1
    neighbour.is_down = True
    with pytest.raises(ProviderUnavailableError):
        await shared.renewed(10)
    assert await shared.get() == 1
    clock.now += 10
    neighbour.is_down = False
    assert await shared.renewed(10) == 3


async def test_it_is_renewed_again_after_so_many_seconds_or_with_a_fetch_that_runs(
    shared, neighbour, clock
):
    neighbour.answers.set()
    assert await shared.renewed(10) == 1
    clock.now += 9.9
    assert await shared.renewed(10) is None
    clock.now += 0.1
    neighbour.answers.clear()
    first, second = (asyncio.create_task(shared.renewed(10)) for _ in range(2))
    await asyncio.sleep(0)
    neighbour.answers.set()
    assert [await first, await second] == [2, 2]
    assert neighbour.asked == 2


async def test_a_fetch_that_nobody_waits_for_or_that_is_cancelled_ends_quietly(neighbour, clock):
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    shared = SharedValue(neighbour, fresh_seconds=60, clock=clock)
    neighbour.is_down = True
    [waiter] = await waiters(shared, 1)
    waiter.cancel()
    await asyncio.wait([waiter])
    neighbour.answers.set()
    await _ended("shared-fetch")
    clock.now += 6
    neighbour.answers.clear()
    leaving, waiter = await waiters(shared, 2)
    leaving.cancel()
    await asyncio.wait([leaving])
    [task] = (one for one in asyncio.all_tasks() if one.get_name() == "shared-fetch")
    task.cancel()
    await asyncio.wait([waiter])
    del task, leaving, waiter
    gc.collect()
    assert said == []
    neighbour.is_down = False
    neighbour.answers.set()
    assert await shared.get() == 3


async def _ended(name: str) -> None:
    tasks = [one for one in asyncio.all_tasks() if one.get_name() == name]
    await asyncio.wait(tasks)
    await asyncio.sleep(0)


MIB = 1024 * 1024
URL = "https://neighbour.example/who"


class Website:
    """An HTTP client that answers with these chunks, or fails."""

    def __init__(
        self, chunks: Sequence[bytes] = (b"{}",), status: int = 200, error: Exception | None = None
    ) -> None:
        self.status = status
        self._chunks = chunks
        self._error = error
        self.read = 0
        self.asked: list[tuple[str, dict[str, Any]]] = []

    @asynccontextmanager
    async def get(self, url: str, **options: Any) -> AsyncIterator[Any]:
        self.asked.append((url, options))
        yield self

    @property
    def content(self) -> Website:
        return self

    async def iter_any(self) -> AsyncIterator[bytes]:
        if self._error:
            raise self._error
        for chunk in self._chunks:
            self.read += len(chunk)
            yield chunk


async def fetched(neighbour: Website) -> bytes | None:
    return await fetch(cast("aiohttp.ClientSession", neighbour), URL, {"Accept": "x"})


async def test_it_is_asked_once_without_following_it_elsewhere() -> None:
    neighbour = Website([b'{"a"', b":1}"])
    assert await fetched(neighbour) == b'{"a":1}'
    [(url, options)] = neighbour.asked
    assert (url, options["headers"], options["allow_redirects"]) == (URL, {"Accept": "x"}, False)
    assert options["timeout"] == aiohttp.ClientTimeout(total=5.0)

    for status in (201, 204, 302, 401, 404, 500):  # only 200 is an answer
        assert await fetched(Website(status=status)) is None


@pytest.mark.parametrize("status", [200, 500])
async def test_an_answer_has_at_most_1_mib(status: int) -> None:
    body = await fetched(Website([b"x" * MIB]))
    assert body == b"x" * MIB
    neighbour = Website([b"x" * MIB, b"x", b"x" * MIB], status)
    with pytest.raises(ProviderUnavailableError, match="too large"):
        await fetched(neighbour)
    assert neighbour.read == MIB + 1


@pytest.mark.parametrize(
    "error", [aiohttp.ClientConnectionError(), TimeoutError(), ValueError("a bad URL")]
)
async def test_without_an_answer_it_is_unavailable(error: Exception) -> None:
    with pytest.raises(ProviderUnavailableError) as refused:
        await fetched(Website(error=error))
    assert refused.value.__cause__ is error


class Named(msgspec.Struct):
    name: str


def test_an_answer_is_what_it_should_be_or_none() -> None:
    assert decode(b'{"name":"a","more":1}', Named).name == "a"
    for body in (b"", b"{}", b"[]", b'{"name":1}', b"\xff", b"[" * 100_000):
        with pytest.raises(ProviderUnavailableError, match="unexpected form"):
            decode(body, Named)
