"""Bearer tokens that the npm package jose signs, as many sign-ins do."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import make_mocked_request

from inngest_outbox.identity.bearer_tokens import BearerTokens
from inngest_outbox.identity.jwks import Jwks
from tests.support.storage import PATIENCE_SECONDS

pytestmark = pytest.mark.slow

ISSUER = "https://front.example.com"
CLAIMS = {"iss": ISSUER, "aud": "outbox", "sub": "u-1", "email": "ada@example.com"}


@pytest.fixture(scope="module")
def signed(node_packages):
    done = subprocess.run(
        [shutil.which("node"), "jwt_tokens.mjs", json.dumps(CLAIMS)],
        cwd=node_packages,
        capture_output=True,
        check=True,
        timeout=PATIENCE_SECONDS,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
async def test_a_token_of_the_package_is_read(signed, aiohttp_server, algorithm):
    async def keys(request: web.Request) -> web.Response:
        return web.json_response(signed["jwks"])

    app = web.Application()
    app.router.add_get("/api/auth/jwks", keys)
    server = await aiohttp_server(app)
    async with ClientSession() as http:
        # The test's issuer is https; its keys are served on this machine.
        jwks = Jwks(
            "http://front.example.com", http, jwks_url=str(server.make_url("/api/auth/jwks"))
        )
        tokens = BearerTokens(jwks, issuer=ISSUER, audience="outbox", user_issuer=ISSUER)
        bearer = {"Authorization": f"Bearer {signed['tokens'][algorithm]}"}
        user = await tokens.find(make_mocked_request("GET", "/", headers=bearer))
    assert (user.owner, user.email) == (f"{ISSUER} u-1", "ada@example.com")
