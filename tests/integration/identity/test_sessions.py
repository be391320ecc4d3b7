"""The service's own session, seen through a small application on a loopback socket."""

from __future__ import annotations

import base64
from http.cookies import SimpleCookie

import pytest
from aiohttp import web
from cryptography.fernet import Fernet
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from service.errors import InvalidFieldError
from service.identity.cookie_session import CookieSessionStorage, derive_fernets
from service.identity.sessions import Sessions
from service.identity.user import User

ADA = User("u-1", "ada@example.com", "Ada", "org-1", email_verified=True)
DAY = 86400.0
NAME = "outbox_session"


class Clock:
    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def start(aiohttp_client, clock):
    async def start(*secrets: str, secure: bool = False, **options):
        own = CookieSessionStorage(secrets or ("secret-one",), secure=secure, clock=clock)
        sessions = Sessions(own, clock=clock, **options)

        async def sign_in(request):
            await sessions.sign_in(request, ADA)
            return web.Response()

        async def sign_out(request):
            await sessions.sign_out(request)
            return web.Response()

        async def who(request):
            user = await sessions.user(request)
            return web.json_response({"id": user and user.id})

        app = web.Application(middlewares=[sessions.middleware()])
        app.router.add_get("/in", sign_in)
        app.router.add_get("/out", sign_out)
        app.router.add_get("/who", who)
        client = await aiohttp_client(app)
        client.sessions = sessions
        return client

    return start


async def signed_in(client) -> str:
    answer = await client.get("/in")
    return cookie_header(answer)


def cookie_header(answer) -> str:
    morsel = SimpleCookie(answer.headers["Set-Cookie"])
    return "; ".join(f"{name}={found.value}" for name, found in morsel.items())


async def who(client, cookie: str):
    client.session.cookie_jar.clear()
    answer = await client.get("/who", headers={"Cookie": cookie} if cookie else {})
    assert answer.status == 200
    return (await answer.json())["id"], answer.headers.getall("Set-Cookie", [])


async def test_a_signed_in_user_is_known_again(start):
    client = await start()
    cookie = await signed_in(client)
    assert await who(client, cookie) == ("u-1", [])


async def test_without_a_cookie_nobody_is_known(start):
    assert await who(await start(), "") == (None, [])


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
    cookie = await signed_in(client)
    answer = await client.get("/out", headers={"Cookie": cookie})
    (morsel,) = SimpleCookie(answer.headers["Set-Cookie"]).values()
    assert (morsel.key, morsel.value, morsel["max-age"]) == ("__Host-outbox_session", "", "0")
    assert morsel["secure"] is True
    assert morsel["path"] == "/"
    assert morsel["httponly"] is True


async def test_an_older_secret_still_opens_and_the_cookie_is_sealed_anew(start):
    cookie = await signed_in(await start("old-secret"))
    rotated = await start("new-secret", "old-secret")
    user, reissued = await who(rotated, cookie)
    assert user == "u-1"
    fresh = cookie_header(type("Answer", (), {"headers": {"Set-Cookie": reissued[0]}}))
    assert await who(await start("new-secret"), fresh) == ("u-1", [])


async def test_a_secret_that_left_the_list_opens_nothing(start):
    cookie = await signed_in(await start("old-secret"))
    assert await who(await start("new-secret"), cookie) == (None, [])


async def test_a_cookie_older_than_a_day_is_issued_anew_even_when_it_is_remembered(start, clock):
    client = await start()
    cookie = await signed_in(client)
    assert await who(client, cookie) == ("u-1", [])
    clock.now += DAY + 1
    user, reissued = await who(client, cookie)
    assert user == "u-1"
    assert len(reissued) == 1


async def test_a_session_ends_after_thirty_days_without_a_visit(start, clock):
    client = await start()
    cookie = await signed_in(client)
    clock.now += 30 * DAY - 1
    assert (await who(client, cookie))[0] == "u-1"
    clock.now += 1
    assert (await who(client, cookie))[0] is None


async def test_a_cookie_from_the_future_is_no_session(start, clock):
    client = await start()
    cookie = await signed_in(client)
    clock.now -= 120
    assert await who(client, cookie) == (None, [])


async def test_signing_in_keeps_nothing_of_the_session_that_was_there(start):
    client = await start()
    planted = await signed_in(client)
    answer = await client.get("/in", headers={"Cookie": planted})
    assert cookie_header(answer) != planted


async def test_authentic_but_odd_content_is_no_session(start, clock):
    (fernet,) = derive_fernets(["secret-one"], "session cookie")
    client = await start()
    for content in (
        b"",
        b"[]",
        b"null",
        b"\xff",
        b'{"issued_at":"now","user":{"id":"x"}}',
        b'{"issued_at":1800000000,"user":{}}',
        b'{"issued_at":1800000000,"user":{"id":1}}',
        b'{"issued_at":1800000000,"user":{"id":"x"},"more":1}',
        b'{"issued_at":1,"user":{"id":"x"}}',
        b"[" * 2000,
    ):
        token = fernet.encrypt_at_time(content, int(clock())).decode()
        assert await who(client, f"{NAME}={token}") == (None, []), content


async def test_a_key_for_another_purpose_opens_nothing(start, clock):
    (fernet,) = derive_fernets(["secret-one"], "something else")
    token = fernet.encrypt_at_time(b'{"issued_at":1800000000,"user":{"id":"x"}}', int(clock()))
    assert await who(await start(), f"{NAME}={token.decode()}") == (None, [])


def test_a_user_that_no_browser_would_keep_is_refused():
    own = CookieSessionStorage(["secret-one"], secure=True)
    with pytest.raises(InvalidFieldError):
        own.seal(User("u-1", name="n" * 3000))


async def test_remembered_users_are_bounded_and_the_least_used_goes_first(start):
    client = await start(max_remembered=2)
    cookie = await signed_in(client)
    for extra in ("a", "b", "a", "c"):
        assert (await who(client, f"{cookie}; x={extra}"))[0] == "u-1"
    remembered = list(client.sessions._remembered)
    assert [found[-1] for found in remembered] == ["a", "c"]
    assert client.sessions._remembered_chars == sum(map(len, remembered))


async def test_unknown_cookies_are_not_remembered(start):
    client = await start()
    await who(client, f"{NAME}=forged")
    assert not client.sessions._remembered


@pytest.fixture(scope="module")
def own() -> CookieSessionStorage:
    return CookieSessionStorage(["secret-one", "secret-two"], secure=False, clock=Clock())


VALID = CookieSessionStorage(["secret-one"], secure=False, clock=Clock()).seal(ADA)
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
