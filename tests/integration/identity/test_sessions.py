"""The service's own session, seen through a small application on a loopback socket."""

from __future__ import annotations

import base64
from http.cookies import SimpleCookie

import pytest
from cryptography.fernet import Fernet
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from service.errors import InvalidFieldError
from service.identity.cookie_session import (
    CookieSessionStorage,
    SignedIn,
    derive_fernets,
)
from service.identity.user import User
from tests.support.clock import Clock
from tests.support.session_app import ADA, START, SessionApp, as_cookie, cookie_of

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


async def test_without_a_cookie_nobody_is_known(start):
    assert await (await start()).who("") == (None, [])


@pytest.mark.parametrize(
    ("secure", "name"), [(True, "__Host-outbox_session"), (False, "outbox_session")]
)
async def test_the_cookie_has_its_flags(start, secure, name):
    answer = await (await start(secure=secure)).get("/in")
    (morsel,) = SimpleCookie(answer.headers["Set-Cookie"]).values()
    assert morsel.key == name
    assert morsel["httponly"] is True
    assert morsel["samesite"] == "Lax"
    assert bool(morsel["secure"]) is secure
    assert (morsel["path"], morsel["domain"], morsel["max-age"]) == ("/", "", str(30 * 86400))


async def test_signing_out_removes_a_host_cookie_with_the_flags_that_browsers_demand(start):
    client = await start(secure=True)
    cookie = await client.signed_in()
    answer = await client.get("/out", cookie)
    (morsel,) = SimpleCookie(answer.headers["Set-Cookie"]).values()
    assert (morsel.key, morsel.value, morsel["max-age"]) == ("__Host-outbox_session", "", "0")
    assert morsel["secure"] is True
    assert morsel["path"] == "/"
    assert morsel["httponly"] is True


async def test_an_older_secret_still_opens_and_the_cookie_is_sealed_anew(start):
    cookie = await (await start("old-secret")).signed_in()
    rotated = await start("new-secret", "old-secret")
    user, reissued = await rotated.who(cookie)
    assert user == "u-1"
    fresh = as_cookie(reissued[0])
    assert await (await start("new-secret")).who(fresh) == ("u-1", [])


async def test_a_secret_that_left_the_list_opens_nothing(start):
    cookie = await (await start("old-secret")).signed_in()
    assert await (await start("new-secret")).who(cookie) == (None, [])


async def test_a_cookie_older_than_a_day_is_issued_anew_even_when_it_is_remembered(start, clock):
    client = await start()
    cookie = await client.signed_in()
    assert await client.who(cookie) == ("u-1", [])
    clock.now += DAY + 1
    user, reissued = await client.who(cookie)
    assert user == "u-1"
    assert len(reissued) == 1


async def test_a_session_ends_after_thirty_days_without_a_visit(start, clock):
    client = await start()
    cookie = await client.signed_in()
    clock.now += 30 * DAY - 1
    assert (await client.who(cookie))[0] == "u-1"
    clock.now += 1
    assert (await client.who(cookie))[0] is None


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


async def test_content_that_is_as_sealed_is_a_session(start, clock):
    (fernet,) = derive_fernets(["secret-one"], "session cookie")
    token = fernet.encrypt_at_time(GOOD, int(clock())).decode()
    assert await (await start()).who(f"{NAME}={token}") == ("x", [])


async def test_a_key_for_another_purpose_opens_nothing(start, clock):
    (fernet,) = derive_fernets(["secret-one"], "something else")
    token = fernet.encrypt_at_time(GOOD, int(clock()))
    assert await (await start()).who(f"{NAME}={token.decode()}") == (None, [])


def test_a_user_that_no_browser_would_keep_is_refused():
    own = CookieSessionStorage(["secret-one"], secure=True)
    with pytest.raises(InvalidFieldError):
        own.begin(User("dev", "u-1", name="n" * 3000), "")


async def test_remembered_users_are_bounded_and_the_least_used_goes_first(start):
    client = await start(max_remembered=2)
    cookie = await client.signed_in()
    for extra in ("a", "b", "a", "c"):
        assert (await client.who(f"{cookie}; x={extra}"))[0] == "u-1"
    remembered = list(client.sessions._remembered._found)
    assert [found[-1] for found in remembered] == ["a", "c"]
    assert client.sessions._remembered._chars == sum(map(len, remembered))


async def test_unknown_cookies_are_not_remembered(start):
    client = await start()
    await client.who(f"{NAME}=forged")
    assert not client.sessions._remembered


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
