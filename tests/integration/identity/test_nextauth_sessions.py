"""A front end's session beside our own: which comes first, what is remembered, signing out."""

from __future__ import annotations

from aiohttp import web

from service.identity.cookie_session import CookieSessionStorage
from service.identity.nextauth import AUTH_JS_5, NEXT_AUTH_4, NextAuthReader
from service.identity.sessions import Sessions
from service.identity.user import User
from tests.support.memory_scopes import revisions
from tests.support.session_tokens import NOW, SECRET, clock, made, reader


async def test_own_cookie_comes_first_then_next_auth_4_then_auth_js_5(aiohttp_client):
    own = CookieSessionStorage(["own-secret"], secure=False, clock=clock)
    sessions = Sessions(own, [reader("v4"), reader("v5")], revisions=revisions(), clock=clock)

    async def who(request):
        return web.json_response((await sessions.user(request)).id)

    app = web.Application(middlewares=[sessions.middleware()])
    app.router.add_get("/", who)
    client = await aiohttp_client(app)
    cookies = {
        own.cookie_name: own.seal(own.begin(User("dev", "own"), "")),
        NEXT_AUTH_4.cookie: made("v4", id="four"),
        AUTH_JS_5.cookie: made("v5", id="five"),
    }
    seen = []
    while cookies:
        header = "; ".join(f"{name}={value}" for name, value in reversed(cookies.items()))
        for _ in range(2):
            answer = await client.get("/", headers={"Cookie": header})
            seen.append(await answer.json())
        del cookies[next(iter(cookies))]
    assert seen == ["own", "own", "four", "four", "five", "five"]


async def test_a_bearer_token_is_not_remembered_for_the_cookie_beside_it(aiohttp_client):
    own = CookieSessionStorage(["own-secret"], secure=False, clock=clock)
    sessions = Sessions(own, [reader("v4")], revisions=revisions(), clock=clock)

    async def who(request):
        user = await sessions.user(request)
        return web.json_response(user and user.id)

    app = web.Application(middlewares=[sessions.middleware()])
    app.router.add_get("/", who)
    client = await aiohttp_client(app)
    cookie = {"Cookie": "theme=dark"}
    bearer = {"Authorization": f"Bearer {made('v4')}"}
    assert await (await client.get("/", headers={**cookie, **bearer})).json() == "user-123"
    assert await (await client.get("/", headers=cookie)).json() is None


async def test_a_remembered_session_still_expires(aiohttp_client):
    now = [float(NOW)]
    reading = NextAuthReader(NEXT_AUTH_4, [SECRET], clock=lambda: now[0])
    own = CookieSessionStorage(["own-secret"], secure=False)
    sessions = Sessions(own, [reading], revisions=revisions(), clock=lambda: now[0])

    async def who(request):
        user = await sessions.user(request)
        return web.json_response(user and user.id)

    app = web.Application(middlewares=[sessions.middleware()])
    app.router.add_get("/", who)
    client = await aiohttp_client(app)
    headers = {"Cookie": f"{NEXT_AUTH_4.cookie}={made('v4')}"}

    async def ask():
        return await (await client.get("/", headers=headers)).json()

    assert (await ask(), await ask()) == ("user-123", "user-123")
    assert len(sessions._remembered) == 1
    now[0] += 60 + 14
    assert await ask() == "user-123"
    now[0] += 1
    assert await ask() is None
    assert not sessions._remembered


async def test_signing_out_removes_the_front_ends_cookies_too(aiohttp_client):
    own = CookieSessionStorage(["own-secret"], secure=True, clock=clock)
    sessions = Sessions(own, [reader("v4"), reader("v5")], revisions=revisions(), clock=clock)

    async def sign_out(request):
        await sessions.sign_out(request)
        return web.Response()

    app = web.Application(middlewares=[sessions.middleware()])
    app.router.add_post("/", sign_out)
    client = await aiohttp_client(app)
    brought = [
        "next-auth.session-token",
        "__Secure-next-auth.session-token.0",
        "__Secure-next-auth.session-token.1",
        "__Secure-authjs.session-token",
    ]
    kept = ["theme", "next-auth.csrf-token", "x-authjs.session-token", "authjs.session-token.x"]
    header = "; ".join(f"{name}=value" for name in (*brought, *kept))
    answer = await client.post("/", headers={"Cookie": header})
    removed = {line.partition("=")[0]: line for line in answer.headers.getall("Set-Cookie")}
    assert removed.keys() == {*brought, "__Host-outbox_session"}
    for name, line in removed.items():
        assert "Max-Age=0" in line
        assert "Path=/" in line
        assert ("Secure" in line.split("; ")) is name.startswith("__")


async def test_a_cookie_decides_before_a_bearer_token_whether_it_is_remembered_or_not(
    aiohttp_client,
):
    own = CookieSessionStorage(["own-secret"], secure=False, clock=clock)
    readers = [reader("v4"), reader("v5")]
    sessions = Sessions(own, readers, revisions=revisions(), clock=clock)

    async def who(request):
        return web.json_response((await sessions.user(request)).id)

    app = web.Application(middlewares=[sessions.middleware()])
    app.router.add_get("/", who)
    client = await aiohttp_client(app)
    both = {
        "Cookie": f"{AUTH_JS_5.cookie}={made('v5', id='cookie')}",
        "Authorization": f"Bearer {made('v4', id='bearer')}",
    }
    seen = [await (await client.get("/", headers=both)).json() for _ in range(3)]
    assert seen == ["cookie"] * 3
    assert len(sessions._remembered) == 1
