"""Application settings over HTTP, on a small application."""

from __future__ import annotations

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from service.app_settings.app_settings import AppSettings
from service.identity.cookie_session import CookieSessionStorage
from service.identity.sessions import Sessions
from service.identity.user import Operators, User
from service.web.resources.app_settings import AppSettingsResource
from service.web.server.cross_site import CrossSite
from service.web.signin.auth import Authenticator, RateLimit
from tests.support.memory_scopes import MemoryScopes, revisions
from tests.support.oidc_browser import refusals

ADA = User("dev", "ada", "ada@example.com", organization_id="org", email_verified=True)
KIM = User("dev", "kim@example.com", "kim@example.com", email_verified=True)
FAKE_KIM = User("dev", "fake", "kim@example.com")


@pytest.fixture
async def ask(aiohttp_client):
    own = CookieSessionStorage(["secret"], secure=False)
    sessions = Sessions(own, revisions=revisions())
    app = web.Application(middlewares=[sessions.middleware(), refusals])
    scopes = MemoryScopes()
    resource = AppSettingsResource(
        AppSettings(scopes, {"a": 1, "b": {"c": 1}}),
        Authenticator(sessions, CrossSite([]), RateLimit(None)),
        Operators(["kim@example.com"]),
    )
    app.add_routes(resource.routes())
    client = await aiohttp_client(app)

    async def ask(method, path, user=None, headers=None, **body):
        cookie = {"Cookie": f"{own.cookie_name}={own.seal(own.begin(user, ''))}"} if user else {}
        answer = await client.request(method, path, headers={**cookie, **(headers or {})}, **body)
        return await answer.json()

    ask.scopes = scopes
    return ask


async def test_a_user_sees_and_replaces_their_own(ask):
    assert await ask("GET", "/api/settings", ADA) == {"a": 1, "b": {"c": 1}}
    changed = {"a": 2, "b": {"c": 1}}
    assert await ask("PUT", "/api/settings", ADA, json={"a": 2}) == changed
    assert await ask("GET", "/api/settings", ADA) == changed
    assert await ask("GET", "/api/settings", KIM) == {"a": 1, "b": {"c": 1}}


async def test_an_operator_replaces_an_organizations_and_it_is_told_to_the_log(ask):
    path = "/api/settings/organization/org"
    with capture_logs() as logs:
        assert await ask("PUT", path, KIM, json={"b": {"d": 2}}) == {"b": {"d": 2}}
    assert [(line["action"], line["actor"], line["organization_id"]) for line in logs] == [
        ("replace_organization_settings", "k***@example.com", "org")
    ]
    assert await ask("GET", "/api/settings", ADA) == {"a": 1, "b": {"c": 1, "d": 2}}


@pytest.mark.parametrize("user", [ADA, FAKE_KIM])
async def test_nobody_else_replaces_an_organizations(ask, user):
    answer = await ask("PUT", "/api/settings/organization/org", user, json={"b": 2})
    assert answer == {"code": "operator_required"}
    assert not ask.scopes.stored


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/settings"),
        ("PUT", "/api/settings"),
        ("PUT", "/api/settings/organization/org"),
    ],
)
async def test_without_a_session_there_is_nothing(ask, method, path):
    assert await ask(method, path, json={"a": 2}) == {"code": "session_required"}
    assert not ask.scopes.stored


@pytest.mark.parametrize("path", ["/api/settings", "/api/settings/organization/org"])
@pytest.mark.parametrize(
    ("headers", "body", "code"),
    [
        ({"Origin": "https://evil.example"}, b"{}", "cross_site_request"),
        ({"Content-Type": "text/plain"}, b"{}", "json_required"),
        ({}, b"{}" + b" " * 65_536, "body_too_large"),
        ({}, b"[]", "invalid_json"),
        ({}, b"", "invalid_json"),
    ],
)
async def test_a_faulty_replacement_changes_nothing(ask, path, headers, body, code):
    headers = {"Content-Type": "application/json", **headers}
    assert await ask("PUT", path, KIM, headers, data=body) == {"code": code}
    assert not ask.scopes.stored


@pytest.mark.parametrize("path", ["/api/settings", "/api/settings/organization/org"])
async def test_settings_have_at_most_64_kib(ask, path):
    headers = {"Content-Type": "application/json"}
    body = b'{"x": "y"}'.ljust(64 * 1024)
    assert (await ask("PUT", path, KIM, headers, data=body))["x"] == "y"
    assert await ask("PUT", path, KIM, headers, data=body + b" ") == {"code": "body_too_large"}


@pytest.mark.parametrize("organization", ["a%00b", "%0a", "x" * 256])
async def test_an_organization_of_an_odd_name_is_refused(ask, organization):
    answer = await ask("PUT", f"/api/settings/organization/{organization}", KIM, json={})
    assert answer == {"code": "invalid_field"}
    longest = f"/api/settings/organization/{'x' * 255}"
    assert await ask("PUT", longest, KIM, json={"a": 1}) == {"a": 1}
