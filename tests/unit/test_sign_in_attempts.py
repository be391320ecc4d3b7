"""A sign-in that a browser began is finished by that browser, within ten minutes."""

from __future__ import annotations

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from inngest_outbox.identity.cookie_session import derive_fernets
from inngest_outbox.identity.sign_in_attempt import (
    AttemptCookie,
    SignInAttempt,
    begin_attempt,
    own_path,
)
from tests.support.clock import Clock

START = 1_800_000_000
NAME = "outbox_sign_in"
CALLBACK = "https://own.example/auth/callback"


@pytest.fixture
def clock() -> Clock:
    return Clock(START + 0.9)


@pytest.fixture
def cookie(clock: Clock) -> AttemptCookie:
    return AttemptCookie(["secret-one"], secure=False, clock=clock)


def loaded(cookie: AttemptCookie, value: str, name: str = NAME) -> SignInAttempt | None:
    headers = {"Cookie": f"a=b; {name}={value}"}
    return cookie.load(make_mocked_request("GET", "/", headers=headers))


def saved(cookie: AttemptCookie, attempt: SignInAttempt) -> dict[str, str]:
    """The attributes of the cookie, and its value under its name."""
    response = web.Response()
    cookie.save(response, attempt)
    [(name, morsel)] = response.cookies.items()
    return {**{key: str(value) for key, value in morsel.items() if value}, name: morsel.value}


def test_each_attempt_has_secrets_of_its_own() -> None:
    first, second = (begin_attempt(CALLBACK, "/outbox") for _ in range(2))
    assert (first.redirect_uri, first.return_to) == (CALLBACK, "/outbox")
    words = {first.state, first.nonce, first.code_verifier}
    words |= {second.state, second.nonce, second.code_verifier}
    assert len(words) == 6
    assert [len(one) for one in (first.state, first.nonce, first.code_verifier)] == [43, 43, 64]
    assert begin_attempt(CALLBACK, "//elsewhere.example").return_to == "/"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/", "/"),
        ("/outbox?a=b#c", "/outbox?a=b#c"),
        ("/" + "a" * 1023, "/" + "a" * 1023),
        ("/" + "a" * 1024, "/"),
        ("", "/"),
        ("outbox", "/"),
        ("//elsewhere.example", "/"),
        ("/\\elsewhere.example", "/"),
        ("/a\\b", "/"),
        ("/a b", "/"),
        ("/a\r\nb", "/"),
        ("/a\n", "/"),
        ("/\u00e9", "/"),
        ("https://elsewhere.example/", "/"),
    ],
)
def test_a_sign_in_goes_back_to_a_path_of_this_service(text: str, path: str) -> None:
    assert own_path(text) == path


@pytest.mark.parametrize("secure", [False, True])
def test_the_cookie_is_the_browser_s_alone_for_ten_minutes(clock: Clock, secure: bool) -> None:  # noqa: FBT001
    cookie = AttemptCookie(["secret-one"], secure=secure, clock=clock)
    attempt = begin_attempt(CALLBACK, "/")
    found = saved(cookie, attempt)
    name = f"__Host-{NAME}" if secure else NAME
    assert loaded(cookie, found.pop(name), name) == attempt
    assert found == {
        "max-age": "600",
        "path": "/",
        "httponly": "True",
        "samesite": "Lax",
        **({"secure": "True"} if secure else {}),
    }
    response = web.Response()
    cookie.clear(response)
    [(removed, morsel)] = response.cookies.items()
    left = {key: str(value) for key, value in morsel.items() if value not in ("", False)}
    left.pop("expires", None)
    assert (removed, morsel.value) == (name, "")
    assert left == {**found, "max-age": "0"}


def test_an_attempt_ends_after_ten_minutes(cookie: AttemptCookie, clock: Clock) -> None:
    attempt = begin_attempt(CALLBACK, "/")
    value = saved(cookie, attempt)[NAME]
    clock.now = START + 600.9
    assert loaded(cookie, value) == attempt
    clock.now = START + 601
    assert loaded(cookie, value) is None


def test_an_attempt_under_an_older_secret_is_finished(clock: Clock, cookie: AttemptCookie) -> None:
    attempt = begin_attempt(CALLBACK, "/")
    value = saved(cookie, attempt)[NAME]
    rotated = AttemptCookie(["secret-two", "secret-one"], secure=False, clock=clock)
    assert loaded(rotated, value) == attempt
    assert loaded(AttemptCookie(["secret-two"], secure=False, clock=clock), value) is None
    assert loaded(cookie, saved(rotated, attempt)[NAME]) is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"state":1}'])
def test_authentic_but_odd_content_is_no_attempt(cookie: AttemptCookie, content: bytes) -> None:
    [fernet] = derive_fernets(["secret-one"], "sign-in attempt")
    assert loaded(cookie, fernet.encrypt_at_time(content, START).decode()) is None
    good = msgspec.json.encode(begin_attempt(CALLBACK, "/"))
    assert loaded(cookie, fernet.encrypt_at_time(good, START).decode())


@pytest.mark.parametrize("value", ["", "x", "\u00e9", "a" * 5000])
def test_what_was_not_sealed_here_is_no_attempt(cookie: AttemptCookie, value: str) -> None:
    assert loaded(cookie, value) is None
    assert cookie.load(make_mocked_request("GET", "/")) is None
    [other] = derive_fernets(["secret-one"], "session cookie")
    good = msgspec.json.encode(begin_attempt(CALLBACK, "/"))
    assert loaded(cookie, other.encrypt_at_time(good, START).decode()) is None
