"""The service's own session cookie: when it opens, when it is renewed, when it ends."""

from __future__ import annotations

import contextlib
import time
from email.utils import parsedate_to_datetime
from http.cookies import SimpleCookie

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from aiohttp_session import Session
from cryptography.fernet import InvalidToken

from inngest_outbox.errors import InvalidFieldError
from inngest_outbox.identity.cookie_session import CookieSessionStorage, SignedIn, derive_fernets
from inngest_outbox.identity.user import User
from tests.support.clock import Clock

ADA = User("dev", "u-1", "ada@example.com", "Ada", "org-1", email_verified=True)
NAME = "outbox_session"
START = 1_800_000_000
DAY = 86_400
# As it was sealed at START with the secret `secret-one`.
SEALED = (
    "gAAAAABrSdIAYjBa876hOwe2LzeQn1L2n9b3o2T4yW60MGt8M4XxctplzCPLsY4-t3m7zRJhEUkJkGdjqH4ZV6wV"
    "xrImrf9W14CVFtJnCD-sgPlUARVygSAce1QH_6pDZICgxMQDRisSBrzniKlzK1MvISvTkODoC20fxOJqG8d71boI"
    "I_DP3_EuRVV5eZzNBmiHvytg2uAlA9MgPK_YJE8neyA0qOxSOHuNlkbBsTJTaDLNVEnQcdu_vSu3NDIgjC_7wDMm"
    "fAWnyrBHu-b6eUmd75pBIPdJSUjdPjBXXfxxnQI7hRY8m1yrDxdMdtUmY7rNqDJNqB5_IuhdtwnoXUOSo27BkzBP"
    "AA=="
)


@pytest.fixture
def clock() -> Clock:
    return Clock(START + 0.9)


@pytest.fixture
def own(clock: Clock) -> CookieSessionStorage:
    return CookieSessionStorage(["secret-one"], secure=False, clock=clock)


async def loaded(own: CookieSessionStorage, value: str) -> Session:
    headers = {"Cookie": f"a=b; {own.cookie_name}={value}"}
    return await own.load_session(make_mocked_request("GET", "/", headers=headers))


async def saved(own: CookieSessionStorage, session: Session) -> dict[str, str]:
    """The attributes of the cookie that the answer sets, and its value."""
    response = web.Response()
    await own.save_session(make_mocked_request("GET", "/"), response, session)
    [line] = [morsel.OutputString() for morsel in response.cookies.values()]
    [(name, morsel)] = SimpleCookie(line).items()
    return {**{key: str(value) for key, value in morsel.items()}, name: morsel.value}


async def test_a_cookie_that_another_release_sealed_still_opens(own: CookieSessionStorage) -> None:
    session = await loaded(own, SEALED)
    assert session["user"] == ADA
    assert session["session"] == SignedIn(ADA, START, "rev")
    assert (session["good_until"], session._changed) == (START + DAY, False)


async def test_without_a_cookie_the_session_is_empty(own: CookieSessionStorage) -> None:
    session = await own.load_session(make_mocked_request("GET", "/"))
    assert (session.empty, session._changed) == (True, False)
    assert (await loaded(own, "")).empty


async def test_a_cookie_is_renewed_when_it_is_a_day_old_and_ends_after_30_days(
    own: CookieSessionStorage, clock: Clock
) -> None:
    for later in (DAY - 1, DAY, 29 * DAY, 30 * DAY - 1):
        clock.now = START + later
        session = await loaded(own, SEALED)
        assert (session["good_until"], session._changed) == (START + DAY, later >= DAY)
    clock.now = START + 30 * DAY
    assert (await loaded(own, SEALED)).empty


async def test_a_session_ends_after_90_days_and_its_cookie_no_later(
    own: CookieSessionStorage, clock: Clock
) -> None:
    value = own.seal(SignedIn(ADA, START - 89 * DAY))
    session = await loaded(own, value)
    assert session["good_until"] == START + DAY
    session.changed()
    assert (await saved(own, session))["max-age"] == str(DAY - 1)
    clock.now = START + DAY / 2
    near_its_end = await loaded(own, own.seal(SignedIn(ADA, START - 89 * DAY)))
    assert near_its_end["good_until"] == START + DAY
    clock.now = START + DAY - 1
    assert not (await loaded(own, value)).empty
    clock.now = START + DAY
    assert (await loaded(own, value)).empty


async def test_a_cookie_under_an_older_secret_opens_and_is_renewed_at_once(clock: Clock) -> None:
    rotated = CookieSessionStorage(["secret-two", "secret-one"], secure=False, clock=clock)
    session = await loaded(rotated, SEALED)
    assert (session["user"], session["good_until"], session._changed) == (ADA, 0, True)
    renewed = (await saved(rotated, session))[NAME]
    again = await loaded(rotated, renewed)
    assert (again["session"], again._changed) == (session["session"], False)
    assert (await loaded(CookieSessionStorage(["secret-two"], secure=False), SEALED)).empty


@pytest.mark.parametrize(
    "value", [SEALED + "=", SEALED[:-1], f"{SEALED}a", "=" + SEALED, f"{SEALED} x", "\u00e9", "a"]
)
async def test_a_cookie_that_is_not_as_it_was_sealed_opens_nothing(
    own: CookieSessionStorage, value: str
) -> None:
    session = await loaded(own, value)
    assert (session.empty, session._changed) == (True, False)


@pytest.mark.parametrize("more", ["", '"more":1,'])
@pytest.mark.parametrize("place", ['{"issued', '{"signed', '{"issuer'])
async def test_authentic_content_with_more_than_a_session_is_none(
    own: CookieSessionStorage, more: str, place: str
) -> None:
    content = (
        '{"issued_at":1800000000,"session":'
        '{"signed_in_at":1800000000,"user":{"issuer":"dev","id":"x"}}}'
    )
    [fernet] = derive_fernets(["secret-one"], "session cookie")
    changed = content.replace(place, "{" + more + place[1:]).encode()
    token = fernet.encrypt_at_time(changed, START).decode()
    assert (await loaded(own, token)).empty is bool(more and "issuer" not in place)


@pytest.mark.parametrize(("secure", "name"), [(False, NAME), (True, f"__Host-{NAME}")])
async def test_the_cookie_is_the_browser_s_alone_and_lasts_30_days_or_is_removed(
    clock: Clock, name: str, *, secure: bool
) -> None:
    own = CookieSessionStorage(["secret-one"], secure=secure, clock=clock)
    attributes = {"path": "/", "httponly": "True", "samesite": "Lax"}
    attributes |= {"secure": "True"} if secure else {}
    session = Session(None, data=None, new=True)
    session["session"] = own.begin(ADA, "rev")
    before = time.time()
    found = await saved(own, session)
    assert (await loaded(own, found.pop(name)))["session"] == SignedIn(ADA, START, "rev")
    ends_at = parsedate_to_datetime(found.pop("expires")).timestamp()
    assert ends_at >= int(before) + 30 * DAY
    whole = {**attributes, "max-age": str(30 * DAY)}
    assert {key: value for key, value in found.items() if value} == whole
    removed = await saved(own, Session(None, data=None, new=True))
    assert removed.pop(name) == ""
    removed.pop("expires")
    gone = {**attributes, "max-age": "0"}
    assert {key: value for key, value in removed.items() if value} == gone


def test_a_cookie_has_at_most_4096_bytes_with_its_name(clock: Clock) -> None:
    own = CookieSessionStorage(["secret-one"], secure=True, clock=clock)
    sizes = []
    for name in ("x" * length for length in range(2500, 3000)):
        user = User("dev", "u-1", name=name)
        size = len(own.cookie_name) + len(own.seal(SignedIn(user, START, "rev")))
        if size > 4096:
            with pytest.raises(InvalidFieldError, match="too long for a session"):
                own.begin(user, "rev")
            break
        own.begin(user, "rev")
        sizes.append(size)
    assert sizes[-1] > 4096 - 32


def test_a_key_opens_nothing_of_another_purpose_or_secret() -> None:
    keys = [
        fernet
        for purpose in ("session cookie", "sign-in cookie")
        for fernet in derive_fernets(["one", "two"], purpose)
    ]
    tokens = [fernet.encrypt(b"x") for fernet in keys]
    opened = []
    for key in keys:
        for at, token in enumerate(tokens):
            with contextlib.suppress(InvalidToken):
                key.decrypt(token)
                opened.append(at)
    assert opened == [0, 1, 2, 3]
