"""Each variable that may hold a secret of Auth.js opens its cookies."""

from __future__ import annotations

import json
import time
from pathlib import Path

import aiohttp

from service.dev.fake_inngest.server import FakeInngest
from tests.support.fleet import environment
from tests.support.service_here import service_here
from tests.support.session_tokens import make

SECRETS = {
    "AUTH_SECRET": ["the-secret-of-today-in-a-list", "the-secret-of-yesterday-in-a-list"],
    "AUTH_SECRET_1": ["the-first-numbered-secret"],
    "AUTH_SECRET_2": ["the-second-numbered-secret"],
    "AUTH_SECRET_3": ["the-third-numbered-secret"],
}


async def user_of(url: str, secret: str) -> object:
    claims = {"sub": "u-1", "email": "ada@example.com", "exp": time.time() + 60}
    token = make("v5", json.dumps(claims).encode(), secret=secret)
    cookies = {"authjs.session-token": token}
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{url}/auth/session", cookies=cookies) as answer,
    ):
        user = (await answer.json())["user"]
        return user and user["id"]


async def test_a_cookie_under_any_of_the_secrets_counts_and_under_another_one_does_not(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    variables = {name: ",".join(secrets) for name, secrets in SECRETS.items()}
    settings = environment(f"sqlite:///{tmp_path}/outbox.db", inngest_api.url, **variables)
    async with service_here(settings) as service:
        for secret in (one for secrets in SECRETS.values() for one in secrets):
            assert await user_of(service.url, secret) == "u-1", secret
        assert await user_of(service.url, "a-secret-that-is-not-configured") is None
