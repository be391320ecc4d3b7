"""Application settings over HTTP, on a small application."""

from __future__ import annotations

from unittest import mock

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from inngest_outbox.app_settings.app_settings import AppSettings
from inngest_outbox.errors import NotFoundError
from inngest_outbox.identity.cookie_session import CookieSessionStorage
from inngest_outbox.identity.sessions import Sessions
from inngest_outbox.identity.user import Operators, User
from inngest_outbox.web.resources.app_settings import AppSettingsResource
from inngest_outbox.web.server.cross_site import CrossSite
from inngest_outbox.web.server.proxies import Proxies
from inngest_outbox.web.signin.auth import Authenticator, RateLimit
from tests.support.memory_scopes import MemoryScopes, revisions
from tests.support.oidc_browser import refusals

ADA = User("dev", "ada", "ada@example.com", organization_id="org", email_verified=True)
KIM = User("dev", "kim@example.com", "kim@example.com", email_verified=True)
FAKE_KIM = User("dev", "fake", "kim@example.com")
JSON = {"Content-Type": "application/json"}
OWN, ORGANIZATION = "/api/settings", "/api/settings/organization/org"


@pytest.fixture
async def ask(aiohttp_client):
    own = CookieSessionStorage(["secret"], secure=False)
    sessions = Sessions(own, revisions=revisions())
    app = web.Application(middlewares=[sessions.middleware(), refusals])
    scopes = MemoryScopes()
    resource = AppSettingsResource(
        AppSettings(scopes, {"a": 1, "b": {"c": 1}}),
        Authenticator(sessions, CrossSite([], secure=False, proxies=Proxies()), RateLimit(None)),
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
    assert await ask("GET", OWN, ADA) == {"a": 1, "b": {"c": 1}}
    changed = {"a": 2, "b": {"c": 1}}
    assert await ask("PUT", OWN, ADA, json={"a": 2}) == changed
    assert await ask("GET", OWN, ADA) == changed
    assert await ask("GET", OWN, KIM) == {"a": 1, "b": {"c": 1}}


async def test_an_operator_replaces_an_organizations_and_it_is_told_to_the_log(ask, monkeypatch):
    with capture_logs() as logs:
        assert await ask("PUT", ORGANIZATION, KIM, json={"b": {"d": 2}}) == {"b": {"d": 2}}
    assert [(line["action"], line["actor"], line["organization_id"]) for line in logs] == [
        ("replace_organization_settings", "k***@example.com", "org")
    ]
    monkeypatch.setattr(ask.scopes, "save_scope", mock.AsyncMock(side_effect=NotFoundError))
    with capture_logs() as logs:
        answer = await ask("PUT", ORGANIZATION, KIM, json={})
    assert (answer, logs) == ({"code": "not_found"}, [])
    assert await ask("GET", OWN, ADA) == {"a": 1, "b": {"c": 1, "d": 2}}


async def test_nobody_else_replaces_an_organizations(ask):
    for user in (ADA, FAKE_KIM):
        answer = await ask("PUT", ORGANIZATION, user, json={"b": 2})
        assert answer == {"code": "operator_required"}
    assert not ask.scopes.stored


async def test_without_a_session_there_is_nothing(ask):
    for method, path in (("GET", OWN), ("PUT", OWN), ("PUT", ORGANIZATION)):
        assert await ask(method, path, json={"a": 2}) == {"code": "session_required"}
    assert not ask.scopes.stored


@pytest.mark.parametrize("path", [OWN, ORGANIZATION])
async def test_a_faulty_replacement_changes_nothing(ask, path):
    """Settings have at most 64 KiB."""
    largest = b'{"x": "y"}'.ljust(64 * 1024)
    for headers, body, code in (
        ({"Origin": "https://evil.example"}, b"{}", "cross_site_request"),
        ({"Content-Type": "text/plain"}, b"{}", "json_required"),
        ({}, largest + b" ", "body_too_large"),
        ({}, b"[]", "invalid_json"),
        ({}, b"", "invalid_json"),
    ):
        assert await ask("PUT", path, KIM, JSON | headers, data=body) == {"code": code}
    assert not ask.scopes.stored
    assert (await ask("PUT", path, KIM, JSON, data=largest))["x"] == "y"


async def test_an_organization_of_an_odd_name_is_refused(ask):
    for organization in ("a%00b", "%0a", "x" * 256):
        answer = await ask("PUT", f"/api/settings/organization/{organization}", KIM, json={})
        assert answer == {"code": "invalid_field"}
    longest = f"/api/settings/organization/{'x' * 255}"
    for settings in ({"a": 1}, {}):
        assert await ask("PUT", longest, KIM, json=settings) == settings
