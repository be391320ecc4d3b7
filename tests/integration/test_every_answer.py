"""Every route under every method has an answer as described, with the request's id."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from inngest_outbox.identity.user import User
from inngest_outbox.outbox.event import Event
from tests.support.service_client import Client, service_client

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")
ADA, OPERATOR = "ada@example.com", "kim@example.com"
UNKNOWN = ("/", "/nowhere", "/api/route/", "/api/events/x/y", "/outbox/nothing/here")


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    given = {"OUTBOX_EVENT_KEYS": "cron:0123456789abcdef", "OPERATOR_EMAILS": OPERATOR}
    async with service_client(tmp_path, keeps_cookies=False, **given) as (service, one):
        owner = User("dev", ADA).owner
        await service.outbox.intake.append(Event("x", "a/b", owner, ADA, 1_795_559_419_447, b"{}"))
        yield one


def paths_of(app: web.Application) -> set[str]:
    known = {resource.canonical for resource in app.router.resources()}
    return {path.replace("{id}", "x").replace("{key}", "x") for path in known}


async def cookie_of(client: Client, email: str) -> str:
    answer = await client.post("/auth/dev-login", json={"email": email})
    return answer.headers["Set-Cookie"].partition(";")[0]


async def check(client: Client, method: str, path: str, headers: dict[str, str]) -> None:
    asked = f"{method} {path}"
    async with client.request(method, path, headers=headers, allow_redirects=False) as answer:
        assert answer.headers["X-Request-Id"] == "mine-1", asked
        assert answer.status != 500, asked
        if answer.status == 405:
            assert answer.headers["Allow"], asked


@pytest.mark.parametrize(
    ("email", "origin"), [(None, {}), (ADA, {}), (OPERATOR, {}), (ADA, {"Origin": "http://evil"})]
)
async def test_every_answer_has_the_request_id_and_is_as_described(
    client: Client, email: str | None, origin: dict[str, str]
) -> None:
    headers = {"X-Request-Id": "mine-1", **origin}
    if email:
        headers["Cookie"] = await cookie_of(client, email)
    paths = paths_of(client.app)
    assert len(paths) > 20
    for path in sorted(paths.union(UNKNOWN), reverse=True):  # an event's stream before its end
        for method in METHODS:
            await check(client, method, path, headers)
