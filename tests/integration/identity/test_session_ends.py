"""How a session of the service ends before its cookie is too old: 90 days, and by command."""

from __future__ import annotations

import pytest

from tests.support.clock import Clock
from tests.support.session_app import START, SessionApp, as_cookie, cookie_of

DAY = 86400.0


@pytest.fixture
def clock() -> Clock:
    return Clock(START)


@pytest.fixture
async def service(aiohttp_client, clock) -> SessionApp:
    return await SessionApp(clock).start(aiohttp_client)


async def test_a_session_that_is_used_every_day_ends_after_90_days(service, clock):
    cookie = await service.signed_in()
    for _ in range(89):
        clock.now += DAY
        user, reissued = await service.who(cookie)
        assert user == "u-1"
        cookie = as_cookie(reissued[0])
    clock.now += DAY - 1
    assert (await service.who(cookie))[0] == "u-1"
    clock.now += 1
    assert await service.who(cookie) == (None, [])


async def test_a_cookie_is_never_kept_longer_than_its_session(service, clock):
    cookie = await service.signed_in()
    for _ in range(4):
        clock.now += 20 * DAY
        _, [reissued] = await service.who(cookie)
        cookie = as_cookie(reissued)
    assert f"Max-Age={10 * 86400};" in reissued


async def test_signing_out_everywhere_ends_every_session_of_the_user(service):
    here, there = await service.signed_in(), await service.signed_in()
    assert [(await service.who(one))[0] for one in (here, there)] == ["u-1", "u-1"]
    await service.get("/out?everywhere=1", here)
    assert [await service.who(one) for one in (here, there)] == [(None, []), (None, [])]


async def test_signing_out_here_ends_no_other_session(service):
    here, there = await service.signed_in(), await service.signed_in()
    await service.get("/out", here)
    assert (await service.who(there))[0] == "u-1"


async def test_after_signing_out_everywhere_one_can_sign_in_again(service):
    await service.get("/out?everywhere=1", await service.signed_in())
    cookie = cookie_of(await service.get("/in"))
    assert (await service.who(cookie))[0] == "u-1"


async def test_who_signs_in_at_a_process_that_has_not_heard_of_the_end_stays_signed_in(
    service, aiohttp_client, clock
):
    late = await SessionApp(clock).start(aiohttp_client)
    late.scopes.stored = service.scopes.stored
    await late.who(await late.signed_in())
    await service.get("/out?everywhere=1", await service.signed_in())
    cookie = await late.signed_in()
    assert [(await one.who(cookie))[0] for one in (late, service)] == ["u-1", "u-1"]


async def test_an_ended_session_stays_ended_when_its_user_signs_out_once_more(service):
    first = await service.signed_in()
    await service.get("/out?everywhere=1", first)
    await service.get("/out?everywhere=1", await service.signed_in())
    assert (await service.who(first))[0] is None


async def test_a_session_that_was_looked_at_is_not_looked_up_again(service):
    cookie = await service.signed_in()
    for _ in range(3):
        assert (await service.who(cookie))[0] == "u-1"
    assert service.scopes.loads == 1


async def test_while_the_store_is_away_a_new_session_is_not_taken_for_granted(service):
    cookie = await service.signed_in()
    service.scopes.scope_revision += 1
    service.scopes.is_away = True
    assert (await service.get("/who", cookie)).status == 500  # no middleware of ours here
