"""Bearer tokens that a real Better Auth issues to a user who signed up there."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from aiohttp import ClientSession, CookieJar

from inngest_outbox.bootstrap.service import run_service
from inngest_outbox.config.settings import Settings

pytestmark = pytest.mark.slow

AUDIENCE = "outbox"
ADA = {"email": "ada@example.com", "password": "a long password", "name": "Ada"}


@pytest.fixture(scope="module")
def issuer(node_packages):
    command = [shutil.which("node"), "better_auth.mjs", AUDIENCE]
    with subprocess.Popen(
        command, cwd=node_packages, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as provider:
        yield provider.stdout.readline().decode().strip()
        provider.kill()


@pytest.fixture(scope="module")
def settings(issuer, tmp_path_factory):
    def make(audience):
        path = tmp_path_factory.mktemp("service") / "outbox.db"
        return Settings.load(
            {
                "OUTBOX_URL": f"sqlite:///{path}",
                "INNGEST_DEV": "http://127.0.0.1:9",
                "JWT_ISSUER": issuer,
                "JWT_JWKS_URL": f"{issuer}/api/auth/jwks",
                "JWT_AUDIENCE": audience,
            }
        )

    return make


@pytest.fixture
async def signed_up(issuer):
    """Ada's id at Better Auth, and a token of hers."""
    async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as browser:
        headers = {"Origin": issuer}
        for way in ("sign-up", "sign-in"):  # the second test finds her there
            answer = await browser.post(f"{issuer}/api/auth/{way}/email", json=ADA, headers=headers)
        user = (await answer.json())["user"]
        token = (await (await browser.get(f"{issuer}/api/auth/token")).json())["token"]
    return user["id"], token


async def test_a_token_of_better_auth_is_a_session_of_its_user(settings, signed_up, aiohttp_client):
    user_id, token = signed_up
    async with run_service(settings(AUDIENCE)) as service:
        client = await aiohttp_client(service.app)
        bearer = {"Authorization": f"Bearer {token}"}
        who = await (await client.get("/auth/session", headers=bearer)).json()
        listed = await client.get("/api/events", headers=bearer)
    assert (who["user"]["id"], who["user"]["email"]) == (user_id, ADA["email"])
    assert listed.status == 200


async def test_a_token_of_better_auth_for_another_audience_is_no_session(
    settings, signed_up, aiohttp_client
):
    async with run_service(settings("another")) as service:
        client = await aiohttp_client(service.app)
        bearer = {"Authorization": f"Bearer {signed_up[1]}"}
        assert (await client.get("/api/events", headers=bearer)).status == 401
