"""Who sends a request: a machine with its key, or the signed-in user; and how often."""

from __future__ import annotations

from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from inngest_outbox.errors import (
    CrossSiteRequestError,
    EventKeyRequiredError,
    NotFoundError,
    RateLimitedError,
    SessionRequiredError,
)
from inngest_outbox.event_types.event_type import Senders
from inngest_outbox.identity.user import EventKeys, User
from inngest_outbox.web.signin.auth import Authenticator, EventKeyAuth, RateLimit
from tests.support.clock import Clock

KEY = "0123456789abcdef"
ADA = User("dev", "ada")
CRON = User("key", "cron")


class Checks:
    """A session, an origin and a rate that a test sets; `asked` says in which order."""

    def __init__(self, user: User | None = ADA) -> None:
        self.found = user
        self.cross_site = False
        self.asked: list[str] = []
        self.limited: set[str] = set()

    async def user(self, request: web.Request) -> User | None:
        self.asked.append("session")
        return self.found

    def check(self, what: Any) -> None:
        if isinstance(what, str):
            self.asked.append(f"rate {what}")
            if what in self.limited:
                raise RateLimitedError
        else:
            self.asked.append("origin")
            if self.cross_site:
                raise CrossSiteRequestError


def authenticator(checks: Any) -> Authenticator:
    return Authenticator(checks, checks, checks)


def auth(checks: Checks, **names: str) -> EventKeyAuth:
    keys = EventKeys(names or {KEY: "cron"})
    return EventKeyAuth(keys, authenticator(checks), cast("RateLimit", checks))


def request(authorization: str = "") -> web.Request:
    headers = {"Authorization": authorization} if authorization else {}
    return make_mocked_request("POST", "/", headers=headers)


async def test_a_user_has_a_session_then_the_right_origin_then_a_rate() -> None:
    checks = Checks()
    assert await authenticator(checks).user(request()) == ADA
    assert checks.asked == ["session", "origin", "rate dev ada"]
    checks.limited = {"dev ada"}
    with pytest.raises(RateLimitedError):
        await authenticator(checks).user(request())
    checks.cross_site = True
    with pytest.raises(CrossSiteRequestError):
        await authenticator(checks).user(request())
    checks.found = None
    with pytest.raises(SessionRequiredError):
        await authenticator(checks).user(request())


def test_a_key_names_a_machine_within_its_rate() -> None:
    checks = Checks()
    assert auth(checks).by_key(KEY) == CRON
    assert checks.asked == ["rate key cron"]
    assert auth(checks).by_key("guess") is None
    assert checks.asked == ["rate key cron"]
    checks.limited = {"key cron"}
    with pytest.raises(RateLimitedError):
        auth(checks).by_key(KEY)


def test_a_machine_s_key_is_its_bearer_token() -> None:
    for scheme in ("Bearer", "bearer", "BEARER "):
        assert auth(Checks()).machine(request(f"{scheme} {KEY} ")) == CRON
    for other in ("", KEY, f"Basic {KEY}", "Bearer", "Bearer guess", f"Bearer{KEY}"):
        with pytest.raises(EventKeyRequiredError):
            auth(Checks()).machine(request(other))


async def test_an_owner_is_the_machine_or_else_the_user() -> None:
    checks = Checks()
    assert await auth(checks).owner(request(f"Bearer {KEY}")) == CRON
    assert checks.asked == ["rate key cron"]
    assert await auth(checks).owner(request(f"Basic {KEY}")) == ADA
    without_keys = EventKeyAuth(EventKeys({}), authenticator(checks), cast("RateLimit", checks))
    for header in ("", f"Bearer {KEY}"):
        with pytest.raises(NotFoundError):
            without_keys.machine(request(header))
    nobodys = auth(Checks(), **{"": "empty"})  # no token is not an empty key
    assert await nobodys.owner(request()) == ADA


@pytest.mark.parametrize(
    ("words", "with_key", "without"),
    [
        (["session"], ADA, ADA),
        (["session", "key"], CRON, ADA),
        (["key"], CRON, EventKeyRequiredError),
    ],
)
@pytest.mark.parametrize("has_keys", [True, False])
async def test_the_sender_is_one_who_may_send(
    words: list[str], with_key: Any, without: Any, *, has_keys: bool
) -> None:
    checks = Checks()
    keys = EventKeys({KEY: "cron"} if has_keys else {})
    auth = EventKeyAuth(keys, authenticator(checks), cast("RateLimit", checks))
    find = auth.sender(Senders(words))
    for header, expected in ((f"Bearer {KEY}", with_key), ("Bearer guess", without), ("", without)):
        found = expected if has_keys else ADA if "session" in words else NotFoundError
        if isinstance(found, User):
            assert await find(request(header)) == found
        else:
            with pytest.raises(found):
                await find(request(header))


@pytest.fixture
def clock() -> Clock:
    return Clock()


def accepted(limit: RateLimit, owner: str, times: int) -> int:
    found = 0
    for _ in range(times):
        try:
            limit.check(owner)
        except RateLimitedError:
            continue
        found += 1
    return found


def test_a_seconds_worth_of_an_owner_passes_at_once_and_then_the_rate(clock):
    limit = RateLimit(5, clock=clock)
    assert (accepted(limit, "a", 20), accepted(limit, "b", 20)) == (5, 5)
    clock.now += 0.4
    assert accepted(limit, "a", 20) == 2
    clock.now += 60
    assert accepted(limit, "a", 20) == 5
    assert accepted(RateLimit(None, clock=clock), "a", 1000) == 1000


def test_a_slow_rate_says_how_many_whole_seconds_are_left(clock):
    limit = RateLimit(0.1, clock=clock)
    limit.check("a")
    for later, told in ((0.0, 10), (0.5, 10), (9.0, 1), (9.5, 1)):
        clock.now = 1000.0 + later
        with pytest.raises(RateLimitedError) as refused:
            limit.check("a")
        assert refused.value.retry_after_seconds == told
    clock.now = 1010.0
    limit.check("a")


def test_the_owners_of_the_last_10000_requests_are_remembered(clock):
    limit = RateLimit(1, clock=clock)
    for number in range(10_000):
        limit.check(str(number))
    with pytest.raises(RateLimitedError):
        limit.check("0")
    limit.check("new")
    limit.check("0")  # the oldest was forgotten
    with pytest.raises(RateLimitedError):
        limit.check("2")
    clock.now += 1
    limit.check("3")  # now the newest
    for number in range(3):
        limit.check(f"newer {number}")
    with pytest.raises(RateLimitedError):
        limit.check("3")
