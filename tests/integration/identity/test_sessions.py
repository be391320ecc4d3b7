"""The service's own session, seen through a small application on a loopback socket."""

from __future__ import annotations

import base64

import pytest
from cryptography.fernet import Fernet
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from service.identity.cookie_session import (
    CookieSessionStorage,
    SignedIn,
    derive_fernets,
)
from tests.support.clock import Clock
from tests.support.session_app import ADA, START, SessionApp, cookie_of

DAY = 86400.0
NAME = "outbox_session"
GOOD = (
    b'{"issued_at":1800000000,"session":{"signed_in_at":1800000000,'
    b'"user":{"issuer":"dev","id":"x"}}}'
)


@pytest.fixture
def clock() -> Clock:
    return Clock(START)


@pytest.fixture
def start(aiohttp_client, clock):
    async def start(*secrets: str, **options) -> SessionApp:
        return await SessionApp(clock, *secrets, **options).start(aiohttp_client)

    return start


async def test_a_signed_in_user_is_known_again(start):
    client = await start()
    cookie = await client.signed_in()
    assert await client.who(cookie) == ("u-1", [])


async def test_a_cookie_older_than_a_day_is_issued_anew_even_when_it_is_remembered(start, clock):
    client = await start()
    cookie = await client.signed_in()
    assert await client.who(cookie) == ("u-1", [])
    clock.now += DAY + 1
    user, reissued = await client.who(cookie)
    assert user == "u-1"
    assert len(reissued) == 1


async def test_a_cookie_from_the_future_is_no_session(start, clock):
    client = await start()
    cookie = await client.signed_in()
    clock.now -= 120
    assert await client.who(cookie) == (None, [])


async def test_signing_in_keeps_nothing_of_the_session_that_was_there(start):
    client = await start()
    planted = await client.signed_in()
    answer = await client.get("/in", planted)
    assert cookie_of(answer) != planted


async def test_authentic_but_odd_content_is_no_session(start, clock):
    (fernet,) = derive_fernets(["secret-one"], "session cookie")
    client = await start()
    good = GOOD
    for content in (
        b"",
        b"[]",
        b"null",
        b"\xff",
        good.replace(b"1800000000", b'"now"'),
        good.replace(b'"id":"x"', b'"id":1'),
        good.replace(b'"issuer":"dev",', b""),
        good.replace(b"}}}", b'}},"more":1}'),
        good.replace(b"}}}", b'},"more":1}}'),
        good.replace(b"1800000000", b"1"),
        good.replace(b'"signed_in_at":1800000000,', b""),
        b"[" * 2000,
    ):
        token = fernet.encrypt_at_time(content, int(clock())).decode()
        assert await client.who(f"{NAME}={token}") == (None, []), content


@pytest.fixture(scope="module")
def own() -> CookieSessionStorage:
    return CookieSessionStorage(["secret-one", "secret-two"], secure=False, clock=Clock(START))


VALID = CookieSessionStorage(["secret-one"], secure=False, clock=Clock(START)).seal(
    SignedIn(ADA, 1_800_000_000)
)
STRANGER = Fernet(base64.urlsafe_b64encode(b"k" * 32)).encrypt_at_time(b"{}", 1_800_000_000)


@given(cookie=st.text() | st.text(alphabet=VALID))
@example(cookie=VALID[:-1])
@example(cookie=VALID + "A")
@example(cookie=VALID[:40] + ("A" if VALID[40] != "A" else "B") + VALID[41:])
@example(cookie=STRANGER.decode())
@example(cookie="\udcff")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_no_forged_value_opens(own, cookie):
    assert all(own._open(fernet, cookie) is None for fernet in own._fernets)
