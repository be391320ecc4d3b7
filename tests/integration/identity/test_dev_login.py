"""The development sign-in: who may use it, and what it takes."""

from __future__ import annotations

from typing import ClassVar

import pytest
from aiohttp import web

from inngest_outbox.identity.cookie_session import CookieSessionStorage
from inngest_outbox.identity.sessions import Sessions
from inngest_outbox.web.pages.page import Pages
from inngest_outbox.web.server.cross_site import CrossSite
from inngest_outbox.web.server.proxies import Proxies
from inngest_outbox.web.signin.dev_login import DevSignIn
from inngest_outbox.web.signin.sign_in import SignIn
from tests.support.html_page import judge_page
from tests.support.memory_scopes import revisions
from tests.support.oidc_browser import refusals

ADA = {"email": "Ada@example.com", "name": "Ada", "id": "U-1", "organizationId": "org-1"}


@pytest.fixture
def start(aiohttp_client):
    async def start(**options):
        sessions = Sessions(CookieSessionStorage(["secret"], secure=False), revisions=revisions())
        app = web.Application(middlewares=[sessions.middleware(), refusals])
        cross_site = CrossSite([], secure=False, proxies=Proxies())
        app.add_routes(SignIn(sessions, cross_site).routes())
        app.add_routes(DevSignIn(sessions, cross_site, Pages(), **options).routes())
        return await aiohttp_client(app)

    return start


async def code(client, body=ADA, **options) -> str:
    answer = await client.post("/auth/dev-login", json=body, **options)
    return (await answer.json()).get("code", "signed in")


async def test_a_developer_signs_in_is_known_and_signs_out(start):
    client = await start(issuer="dev")
    known = {**ADA, "emailVerified": True}
    for headers in ({}, BROWSER):  # what is JSON is no form
        answer = await client.post("/auth/dev-login", json=ADA, headers=headers)
        assert await answer.json() == {"user": known}
    assert await (await client.get("/auth/session")).json() == {"user": known}
    assert await (await client.post("/auth/logout")).json() == {"user": None}
    assert await (await client.get("/auth/session")).json() == {"user": None}


async def test_a_sign_out_leads_a_browser_to_a_page_of_the_service(start):
    client = await start(issuer="dev")
    for wanted, location in (
        ("/outbox", "/outbox"),
        ("", "/"),
        ("//evil.example", "/"),
        ("https://x", "/"),
    ):
        await client.post("/auth/dev-login", json=ADA)
        asked = {"params": {"returnTo": wanted}, "allow_redirects": False}
        answer = await client.post("/auth/logout", **asked)
        assert (answer.status, answer.headers["Location"]) == (303, location)
        assert await (await client.get("/auth/session")).json() == {"user": None}


async def test_the_id_defaults_to_the_email_in_lower_case_and_nothing_else(start):
    client = await start(issuer="dev")
    rest = {"name": None, "organizationId": None, "emailVerified": True}
    for given, user_id in (({}, "ada@example.com"), ({"id": "u-1"}, "u-1")):
        body = {"email": "Ada@example.com", **given}
        answer = await client.post("/auth/dev-login", json=body)
        assert await answer.json() == {"user": {**body, "id": user_id, **rest}}


async def test_production_has_no_development_sign_in_whatever_the_options(start):
    for anywhere in (False, True):
        client = await start(issuer=None, anywhere=anywhere)
        assert await code(client) == "not_found"
        form = await client.get("/auth/dev-login")
        assert (await form.json())["code"] == "not_found"


class TestFromElsewhere:
    elsewhere: ClassVar = [
        {"Host": "outbox.example.com"},
        {"Host": "::1:bad]"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"Via": "1.1 proxy"},
    ]

    @pytest.mark.parametrize("headers", elsewhere)
    async def test_it_is_not_there(self, start, headers):
        assert await code(await start(issuer="dev"), headers=headers) == "not_found"

    @pytest.mark.parametrize("headers", elsewhere)
    async def test_a_proxy_is_let_in_when_the_configuration_says_so(self, start, headers):
        """A Host that is no loopback name never is: any page can point a name of its own here."""
        client = await start(issuer="dev", anywhere=True)
        expected = "not_found" if "Host" in headers else "signed in"
        assert await code(client, headers=headers) == expected


@pytest.mark.parametrize("path", ["/auth/dev-login", "/auth/logout"])
async def test_another_site_signs_nobody_in_or_out(start, path):
    client = await start(issuer="dev")
    answer = await client.post(path, json=ADA, headers={"Origin": "https://evil.example"})
    assert (await answer.json())["code"] == "cross_site_request"
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"email": ""},
        {"email": "ada"},
        {"email": "ada@example.com\n"},
        {"email": "a b@example.com"},
        {"email": "a@b c"},
        {"email": "a@b@c"},
        {"email": 7},
        {"email": "a@b", "id": ""},
        {"email": "a@b", "id": "x" * 256},
        {"email": "a@b", "id": "nul\x00"},
        {"email": "a@b", "id": "line\n"},
        {"email": "a@b", "id": "  "},
        {"email": "a@b", "id": "bidi\u202e"},
        {"email": "a@b\x00"},
        {"email": "a\u202e@b"},
        {"email": "a@b", "name": "c1\x9b"},
        {"email": "a@b", "organizationId": "bidi\u202e"},
        {"email": "a@b", "name": "n" * 256},
        {"email": "a@b", "name": ["n"]},
    ],
)
async def test_a_body_of_the_wrong_shape_is_refused(start, body):
    assert await code(await start(issuer="dev"), body) == "invalid_field"


async def test_a_user_may_have_an_address_of_254_characters_and_a_name_of_255(start):
    client = await start(issuer="dev")
    email = "a" * 242 + "@example.com"
    body = {"email": email, "name": "n" * 255}
    answer = await client.post("/auth/dev-login", json=body)
    assert (await answer.json())["user"]["email"] == email
    assert await code(client, {"email": "a" + email}) == "invalid_field"
    long = "\U0001f600" * 255  # no cookie can hold them all
    body = {"email": "a@b", "id": long, "name": long, "organizationId": long}
    assert await code(client, body) == "invalid_field"


@pytest.mark.parametrize(
    ("data", "content_type", "expected"),
    [
        (b"{", "application/json", "invalid_json"),
        (b"", "application/json", "invalid_json"),
        (b'{"email":"a@b\xff"}', "application/json", "invalid_json"),
        (b'{"email":"a@b", "other": "\xff"}', "application/json", "invalid_json"),
        (b'{"email":"a@b\\ud800"}', "application/json", "invalid_json"),
        (b"[]", "application/json", "invalid_json"),
        (b" null", "application/json", "invalid_json"),
        (b'"ada@example.com"', "application/json", "invalid_json"),
        (b'{"email":' + b"[" * 10_000, "application/json", "invalid_field"),
        (b'{"more":' + b"[" * 60_000, "application/json", "invalid_json"),
        (b'{"email":"a@b"}' + b" " * 65_536, "application/json", "body_too_large"),
        (b'{"email":"a@b"}', "text/plain", "json_required"),
        (b"email=a@b", "application/x-www-form-urlencoded", "json_required"),
        (b'{"email":"a@b"}', "application/json; charset=utf-8", "signed in"),
    ],
)
async def test_a_body_that_is_not_json_is_refused(start, data, content_type, expected):
    client = await start(issuer="dev")
    answer = await client.post("/auth/dev-login", data=data, headers={"Content-Type": content_type})
    assert (await answer.json()).get("code", "signed in") == expected


FORM = """<main>
<h1>Sign in</h1>
<p>This sign-in is for development. It believes whatever you enter.</p>
<form method="post" action="/auth/dev-login">
<input type="hidden" name="returnTo" value="/outbox">
<label for="email">E-mail address</label>
<input id="email" name="email" type="email" required maxlength="254" autocomplete="email" autofocus>
<label for="name">Name (optional)</label>
<input id="name" name="name" maxlength="255" autocomplete="name">
<label for="id">User id (optional; the e-mail address without one)</label>
<input id="id" name="id" maxlength="255">
<label for="organizationId">Organization id (optional)</label>
<input id="organizationId" name="organizationId" maxlength="255">
<button>Sign in</button>
</form>
</main>
</body>
</html>"""
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


async def test_a_browser_signs_in_with_the_form_and_goes_on_to_where_it_wanted(start):
    client = await start(issuer="dev")
    answer = await client.get("/auth/dev-login?returnTo=/outbox")
    form = await answer.text()
    judge_page(form, "/auth/dev-login", answer.headers["Content-Security-Policy"])
    assert form.endswith(FORM)
    fields = {"email": "Ada@example.com", "name": "", "returnTo": "/outbox"}
    answer = await client.post(
        "/auth/dev-login", data=fields, headers=BROWSER, allow_redirects=False
    )
    assert (answer.status, answer.headers["Location"]) == (303, "/outbox")
    known = await (await client.get("/auth/session")).json()
    assert known["user"]["id"] == "ada@example.com"


async def test_the_form_leads_to_no_other_site_and_to_the_api_where_nothing_is_wanted(start):
    client = await start(issuer="dev")
    for wanted, location in (
        ({"returnTo": "//evil.example"}, "/"),
        ({"returnTo": "https://evil.example"}, "/"),
        ({"returnTo": "/\\evil.example"}, "/"),
        ({}, "/docs"),
    ):
        form = await client.get("/auth/dev-login", params=wanted)
        assert f'name="returnTo" value="{location}"' in await form.text()
        fields = {"email": "ada@example.com", **wanted}
        answer = await client.post(
            "/auth/dev-login", data=fields, headers=BROWSER, allow_redirects=False
        )
        assert answer.headers["Location"] == location, wanted


async def test_a_form_without_an_email_or_with_too_much_is_refused(start):
    client = await start(issuer="dev")
    large = {"email": "a@b", "name": "n" * 65_536}
    for fields, code in (({"name": "Ada"}, "invalid_field"), (large, "body_too_large")):
        answer = await client.post("/auth/dev-login", data=fields, headers=BROWSER)
        assert (await answer.json())["code"] == code


async def test_a_form_that_is_no_text_is_read_as_far_as_it_is(start):
    client = await start(issuer="dev")
    headers = {**BROWSER, "Content-Type": "application/x-www-form-urlencoded"}
    fields = b"email=a@b&returnTo=/auth/session&name=\xff"
    answer = await client.post("/auth/dev-login", data=fields, headers=headers)
    assert (await answer.json())["user"]["name"] == "\ufffd"
