"""A busy run with everything that can be secret in it, and its logs without any of it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from inngest_outbox.dev.fake_inngest.faults import Match, Poison, Reset, ScriptedAnswer
from inngest_outbox.dev.fake_inngest.server import FakeInngest, FakeOptions
from tests.support.fleet import Process, environment, running
from tests.support.forged_provider import CLIENT_ID, CLIENT_SECRET, ForgedProvider
from tests.support.outbox_command import outbox_json
from tests.support.storage import PATIENCE_SECONDS, eventually

VECTORS = json.loads(
    (Path(__file__).parents[1] / "support" / "nextauth-vectors.json").read_text("utf-8")
)
NEXTAUTH = VECTORS["v4"]["vectors"][0]
EVENT_KEY = "evt-key-0b9d1c"
FALLBACK_KEY = "evt-fallback-77f2aa"
SESSION_SECRETS = ("signing-secret-5e1f9c", "older-secret-9ab2d4")
MACHINE_KEY = "machine-key-4c1e88a0"
WRONG_KEY = "wrong-machine-key-90ab"
EVENT_ID = "event-id-of-a-sender-8812"
METRICS_TOKEN = "metrics-token-3f77"
AWS_SECRET = "aws-secret-71cc0e"
EMAIL = "ada.lovelace@example.com"
OPERATOR = "grace.hopper@example.com"
NAME = "Ada Lovelace"
DOCUMENT = "salaries-2026-confidential.pdf"
POISONED = "poison-merger-plan.pdf"
SETTING = "a-setting-nobody-else-may-see"
IDEMPOTENCY_KEY = "idempotency-key-51aa"


class Front:
    """A front end that remembers every cookie it was given."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url
        self.cookies: set[str] = set()

    async def ask(self, method: str, path: str, **options: Any) -> int:
        with contextlib.suppress(aiohttp.ClientError):
            async with self._http.request(
                method, self._url + path, allow_redirects=False, **options
            ) as answer:
                await answer.read()
                self.cookies |= {morsel.value for morsel in answer.cookies.values() if morsel.value}
                return answer.status
        return 0


@contextlib.asynccontextmanager
async def front(url: str) -> AsyncIterator[Front]:
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar) as http:
        yield Front(http, url)


def configuration(path: Path, api: FakeInngest, provider: str) -> dict[str, str]:
    return environment(
        f"sqlite:///{path}/outbox.db",
        "0",
        INNGEST_BASE_URL=api.url,
        INNGEST_EVENT_KEY=EVENT_KEY,
        INNGEST_EVENT_KEY_FALLBACK=FALLBACK_KEY,
        SESSION_SECRET=",".join(SESSION_SECRETS),
        NEXTAUTH_SECRET=NEXTAUTH["secret"],
        OIDC_ISSUER=provider,
        OIDC_CLIENT_ID=CLIENT_ID,
        OIDC_CLIENT_SECRET=CLIENT_SECRET,
        METRICS_TOKEN=METRICS_TOKEN,
        OUTBOX_EVENT_KEYS=f"shop:{MACHINE_KEY}",
        OPERATOR_EMAILS=OPERATOR,
        AWS_SECRET_ACCESS_KEY=AWS_SECRET,
        LOG_LEVEL="debug",
        LOG_FORMAT="json",
    )


async def be_busy(visitor: Front, operator: Front) -> None:
    """Everything that a log line may be written about."""
    await visitor.ask("POST", "/auth/dev-login", json={"email": EMAIL, "name": NAME})
    await operator.ask("POST", "/auth/dev-login", json={"email": OPERATOR})
    body = {"documentName": DOCUMENT}
    key = {"Idempotency-Key": IDEMPOTENCY_KEY}
    for options in (
        {"json": body, "headers": key},
        {"json": {"documentName": POISONED}, "headers": key},
        {"json": {"documentName": f"../{DOCUMENT}"}},
        {"data": f'{{"documentName": "{DOCUMENT}'},
        {"json": body, "headers": {"Origin": "https://evil.example"}},
        {"json": body, "params": {"token": DOCUMENT}},
        {"json": {"documentName": POISONED}},
    ):
        await visitor.ask("POST", "/api/route", **options)  # type: ignore[arg-type]
    await visitor.ask("PUT", "/api/settings", json={"theme": SETTING})
    upload = {"documentName": DOCUMENT, "contentType": "application/pdf", "size": 10}
    await visitor.ask("POST", "/api/uploads", json=upload)
    await visitor.ask("GET", "/auth/login")
    await visitor.ask("GET", f"/auth/callback?code={DOCUMENT}&state=x")
    await visitor.ask("GET", "/metrics", headers={"Authorization": f"Bearer {METRICS_TOKEN}"})
    await operator.ask("GET", "/outbox")
    await post_as_a_machine(visitor)


async def post_as_a_machine(visitor: Front) -> None:
    events = [{"name": "a/b", "id": EVENT_ID, "data": {"x": DOCUMENT}}]
    for key in (MACHINE_KEY, WRONG_KEY):
        bearer = {"Authorization": f"Bearer {key}"}
        for body in (events, [{"name": "", "data": {"x": DOCUMENT}}], "x"):
            await visitor.ask("POST", f"/e/{key}", json=body)
            await visitor.ask("POST", "/api/events", json=body, headers=bearer)
        await visitor.ask("GET", f"/e/{key}")
        await visitor.ask("POST", f"/e/{key}/more", json=events)
        await visitor.ask("POST", f"/e/{key}", data=b"", headers={"Expect": "nothing"})
        await visitor.ask("POST", f"/e/{key}", data=io.BytesIO(b" " * (21 * 1024 * 1024)))
        await visitor.ask("GET", f"/api/events/{EVENT_ID}", headers=bearer)
        await visitor.ask("DELETE", f"/api/events/{EVENT_ID}", headers=bearer)


async def post_as_a_next_auth_user(url: str) -> None:
    cookies = {NEXTAUTH["cookie_name"]: NEXTAUTH["token"]}
    async with (
        aiohttp.ClientSession(cookies=cookies) as http,
        http.post(f"{url}/api/route", json={"documentName": DOCUMENT}) as answer,
    ):
        assert answer.status == 200
    bad = {NEXTAUTH["cookie_name"]: NEXTAUTH["token"][:-3] + "abc"}
    async with (
        aiohttp.ClientSession(cookies=bad) as http,
        http.post(f"{url}/api/route", json={"documentName": DOCUMENT}) as answer,
    ):
        assert answer.status == 401


async def dead_event(url: str) -> str:
    async def rows() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await outbox_json(url, "list", "--state", "dead")
        return found

    return str((await eventually(rows))[0]["id"])


@pytest.fixture
def api() -> FakeInngest:
    return FakeInngest(options=FakeOptions(keys=[FALLBACK_KEY]))


def script_trouble(api: FakeInngest) -> None:
    quoting = f'{{"ids":[],"error":"no such key {EVENT_KEY} in /e/{EVENT_KEY}"}}'
    for action in (
        ScriptedAnswer(401, body=quoting),
        ScriptedAnswer(401, body=quoting),
        ScriptedAnswer(500, body=f"<html>/e/{FALLBACK_KEY}</html>", content_type="text/html"),
        Reset("read"),
    ):
        api.faults.add(action)
    api.faults.add(Poison("refused"), times=None, match=Match(prefix="poison"))


async def test_no_secret_and_nothing_personal_is_logged(tmp_path: Path, api: FakeInngest) -> None:
    outbox_url = f"sqlite:///{tmp_path}/outbox.db"
    lines: list[str] = []
    secrets: set[str] = set()
    async with api, ForgedProvider() as provider:
        script_trouble(api)
        settings = configuration(tmp_path, api, provider.issuer)
        async with running("serve", environment=settings) as service:
            async with front(service.url) as visitor, front(service.url) as operator:
                await be_busy(visitor, operator)
                await post_as_a_next_auth_user(service.url)
                dead = await dead_event(outbox_url)
                assert await operator.ask("GET", f"/api/events/{dead}") == 200
                organization = "/api/settings/organization/acme"
                assert await operator.ask("PUT", organization, json={"theme": SETTING}) == 200
                await operator.ask("POST", "/outbox/replay", data={"id": dead, "confirmed": "yes"})
                secrets = visitor.cookies | operator.cookies
            await outbox_json(outbox_url, "pause", "--actor", OPERATOR)
            await outbox_json(outbox_url, "resume", "--actor", OPERATOR)
            service.kill()
            await service.ended()
            lines += service.lines
        async with running("serve", environment=settings) as service:
            assert await stopped(service) == 0
            lines += service.lines
    check(lines, secrets)


async def stopped(service: Process) -> int:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await service.stop()


def check(lines: list[str], cookies: set[str]) -> None:
    text = "".join(lines)
    events = [json.loads(line)["event"] for line in lines if line.startswith("{")]
    # The run was busy: what is not there can't leak.
    assert {"request", "send", "dead", "breaker_changed", "operator_action"} <= set(events)
    assert len(cookies) >= 3
    secrets = {
        *(EVENT_KEY, FALLBACK_KEY, *SESSION_SECRETS, METRICS_TOKEN, AWS_SECRET, CLIENT_SECRET),
        *(MACHINE_KEY, WRONG_KEY, EVENT_ID),
        *(EMAIL, OPERATOR, NAME, DOCUMENT, POISONED, SETTING, IDEMPOTENCY_KEY),
        *(NEXTAUTH["secret"], NEXTAUTH["token"], *NEXTAUTH["claims"].values()),
        *cookies,
    }
    leaked = {secret for secret in secrets if secret and secret in text}
    assert leaked == set(), [line for line in lines if any(one in line for one in leaked)][:5]
