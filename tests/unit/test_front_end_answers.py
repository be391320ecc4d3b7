"""What a front end is asked about its session cookies, and what its answers count for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from inngest_outbox.errors import ProviderUnavailableError
from inngest_outbox.identity.front_end_sessions import FrontEndSessions
from tests.support.clock import Clock
from tests.support.virtual_time import in_virtual_time

URL = "https://app.example/api/auth/session"
OLD, NEW = "next-auth.session-token", "authjs.session-token"
ISSUERS = {OLD: "four", NEW: "five"}
TOKEN = "0b0f5a1e-8d6c-4f5f-9a52-2f5d3c1a7b90"
DEEP = b'{"user":{"a":' + b"[" * 100_000
ADA = b'{"user":{"name":"Ada","email":"ada@example.com"}}'


class FrontEnd:
    """An HTTP client whose front end says `body`, at once or when it is let go."""

    def __init__(self, body: bytes = ADA) -> None:
        self.body = body
        self.status = 200
        self.is_silent = False
        self.go: asyncio.Event | None = None
        self.asked: list[tuple[str, str, str]] = []
        self.at_once = self.most_at_once = 0

    @asynccontextmanager
    async def get(self, url: str, *, headers: dict[str, str], **_: Any) -> AsyncIterator[Any]:
        self.asked.append((url, headers["Cookie"], headers["Accept"]))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.go:
                await self.go.wait()
            if self.is_silent:
                raise aiohttp.ClientConnectionError
            yield self
        finally:
            self.at_once -= 1

    @property
    def content(self) -> FrontEnd:
        return self

    async def iter_any(self) -> AsyncIterator[bytes]:
        yield self.body


def sessions(front_end: FrontEnd, clock: Clock, url: str = "https://app.example") -> Any:
    http = cast("aiohttp.ClientSession", front_end)
    return FrontEndSessions(url, http, issuers=ISSUERS, clock=clock)


def request(**cookies: str) -> web.Request:
    return with_header("; ".join(f"{name}={value}" for name, value in cookies.items()))


def with_header(cookies: str) -> web.Request:
    return make_mocked_request("GET", "/", headers={"Cookie": cookies})


ASKING = request(**{OLD: TOKEN})


@pytest.mark.parametrize("url", ["https://app.example", "https://app.example/"])
async def test_it_is_asked_about_its_own_cookie_alone(clock: Clock, url: str) -> None:
    front_end = FrontEnd()
    user = await sessions(front_end, clock, url).find(with_header(f"a=b; {OLD}={TOKEN}; c=d"))
    assert user.owner == "four ada@example.com"
    assert front_end.asked == [(URL, f"{OLD}={TOKEN}", "application/json")]


async def test_the_first_name_with_such_a_cookie_counts(clock: Clock) -> None:
    both = request(**{NEW: "x" * 16, OLD: "y" * 16})
    assert (await sessions(FrontEnd(), clock).find(both)).issuer == "four"
    other = request(**{OLD: "a.b.c", NEW: "x" * 16})
    assert (await sessions(FrontEnd(), clock).find(other)).issuer == "five"


@pytest.mark.parametrize(
    ("value", "is_asked"),
    [
        ("x" * 16, True),
        ("x" * 512, True),
        ("aZ09_-" * 3, True),
        ("x" * 15, False),
        ("x" * 513, False),
        ("x" * 16 + ".", False),
        ("x" * 16 + "\u00e9", False),
        ("", False),
    ],
)
async def test_only_a_random_text_is_asked_about(
    clock: Clock, value: str, *, is_asked: bool
) -> None:
    front_end = FrontEnd()
    assert bool(await sessions(front_end, clock).find(request(**{OLD: value}))) is is_asked
    assert bool(front_end.asked) is is_asked
    assert await sessions(front_end, clock).find(with_header("a=b")) is None


async def test_an_answer_counts_for_half_a_minute(clock: Clock) -> None:
    front_end = FrontEnd()
    asking = sessions(front_end, clock)
    for later, asked in ((0.0, 1), (29.9, 1), (30.0, 2), (30.0, 2)):
        clock.now = 1000.0 + later
        assert await asking.find(ASKING)
        assert len(front_end.asked) == asked


@pytest.mark.parametrize(
    "body",
    [b"{}", b"null", b" null\n", b'{"user":null}', b'{"user":{}}', b'{"user":{"name":"Ada"}}'],
)
async def test_a_session_without_a_user_is_none_and_is_asked_about_again(
    clock: Clock, body: bytes
) -> None:
    front_end = FrontEnd(body)
    asking = sessions(front_end, clock)
    assert [await asking.find(ASKING), await asking.find(ASKING)] == [None, None]
    assert len(front_end.asked) == 2


async def test_the_id_of_the_callback_counts_before_the_email(clock: Clock) -> None:
    front_end = FrontEnd(b'{"user":{"id":7,"email":"ada@example.com"}}')
    assert (await sessions(front_end, clock).find(ASKING)).owner == "four 7"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        *[(200, body) for body in (b"", b"[]", b"<html>", b'{"user":7}', DEEP)],
        (500, ADA),
    ],
)
async def test_an_answer_that_is_none_is_no_sign_out_and_no_silence(
    clock: Clock, status: int, body: bytes
) -> None:
    front_end = FrontEnd(body)
    front_end.status = status
    asking = sessions(front_end, clock)
    for _ in range(2):
        words = "does not say who you are" if status == 500 else None
        with pytest.raises(ProviderUnavailableError, match=words):
            await asking.find(ASKING)
    assert len(front_end.asked) == 2


async def test_who_did_not_answer_is_not_asked_for_5_s(clock: Clock) -> None:
    front_end = FrontEnd()
    front_end.is_silent = True
    asking = sessions(front_end, clock)
    again = [(5.0 * number, number + 1) for number in range(2, 9)]  # as often as it has turns
    for later, asked in ((0.0, 1), (4.9, 1), (5.0, 2), (9.9, 2), *again):
        clock.now = 1000.0 + later
        with pytest.raises(ProviderUnavailableError):
            await asking.find(ASKING)
        assert len(front_end.asked) == asked
    front_end.is_silent = False
    clock.now = 1045.0
    assert await asking.find(ASKING)


async def test_a_cached_answer_counts_while_it_is_silent(clock: Clock) -> None:
    front_end = FrontEnd()
    asking = sessions(front_end, clock)
    assert await asking.find(ASKING)
    front_end.is_silent = True
    with pytest.raises(ProviderUnavailableError):
        await asking.find(request(**{OLD: "x" * 16}))
    assert await asking.find(ASKING)


def unknown(asking: Any, count: int) -> list[asyncio.Task[Any]]:
    requests = [request(**{OLD: f"{number:016}"}) for number in range(count)]
    return [asyncio.create_task(asking.find(one)) for one in requests]


@in_virtual_time
async def test_it_is_asked_eight_questions_at_a_time_and_others_wait_5_s() -> None:
    front_end = FrontEnd()
    front_end.go = asyncio.Event()
    asking = sessions(front_end, Clock())
    tasks = unknown(asking, 20)
    late = asyncio.get_running_loop().call_later(4.9, front_end.go.set)
    assert len(await asyncio.gather(*tasks)) == 20
    assert (front_end.most_at_once, len(front_end.asked)) == (8, 20)
    late.cancel()


@in_virtual_time
async def test_who_waits_5_s_for_a_turn_is_told_so_and_a_turn_is_free_again() -> None:
    front_end, loop = FrontEnd(), asyncio.get_running_loop()
    front_end.go = asyncio.Event()
    asking = sessions(front_end, Clock())
    tasks = unknown(asking, 10)
    found = await asyncio.gather(*tasks[8:], return_exceptions=True)
    assert [type(one) for one in found] == [ProviderUnavailableError] * 2
    assert loop.time() == 5.0
    tasks[0].cancel()
    await asyncio.wait(tasks[:1])
    front_end.go.set()
    assert all(await asyncio.gather(*tasks[1:8]))
    assert all(await asyncio.gather(*unknown(asking, 8)))
