"""Fresh session tokens of the real next-auth 4 and Auth.js 5 packages, made by Node."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from aiohttp.test_utils import make_mocked_request

from inngest_outbox.identity.nextauth import next_auth_readers
from tests.support.session_tokens import found_by
from tests.support.storage import PATIENCE_SECONDS

pytestmark = pytest.mark.slow

SECRET = "a secret of the front end, with ünïcode"
CLAIMS = {"sub": "u-1", "id": "own-7", "name": "Ada ☃", "email": "ada@example.com"}
V4, V5 = "next-auth.session-token", "authjs.session-token"


@pytest.fixture(scope="module")
def tokens(node_packages):
    def make(*wishes):
        done = subprocess.run(
            [shutil.which("node"), "session_tokens.mjs", json.dumps(wishes)],
            cwd=node_packages,
            capture_output=True,
            check=True,
            timeout=PATIENCE_SECONDS,
        )
        return json.loads(done.stdout)

    wish = {"token": CLAIMS, "secret": SECRET}
    big = {**wish, "token": {**CLAIMS, "groups": [f"group-{n}" for n in range(500)]}}
    old = {"secret": ["a newer secret", SECRET]}
    names = {
        "v4": {"version": "v4", **wish},
        "v4 big": {"version": "v4", **big},
        "v4 expired": {"version": "v4", **wish, "maxAge": -60},
        "v4 just expired": {"version": "v4", **wish, "maxAge": -5},
        "v5": {"version": "v5", **wish, "salt": V5},
        "v5 secure": {"version": "v5", **wish, "salt": f"__Secure-{V5}"},
        "v5 big": {"version": "v5", **big, "salt": f"__Secure-{V5}"},
        "v5 newer": {"version": "v5", **wish, **old, "salt": V5},
        "v5 expired": {"version": "v5", **wish, "salt": V5, "maxAge": -60},
    }
    return dict(zip(names, make(*names.values()), strict=True))


def read(cookies, *, nextauth_secret=SECRET, auth_secrets=(SECRET,)):
    pairs = "; ".join(f"{name}={value}" for name, value in cookies.items())
    request = make_mocked_request("GET", "/", headers={"Cookie": pairs})
    readers = next_auth_readers(nextauth_secret=nextauth_secret, auth_secrets=auth_secrets)
    found = next(filter(None, (found_by(reader, request) for reader in readers)), None)
    return found and found.user


@pytest.mark.parametrize(
    ("token", "cookie"),
    [
        ("v4", V4),
        ("v4", f"__Secure-{V4}"),
        ("v4 just expired", V4),
        ("v5", V5),
        ("v5 secure", f"__Secure-{V5}"),
    ],
)
def test_a_fresh_token_gives_its_user(tokens, token, cookie):
    user = read({cookie: tokens[token]})
    assert (user.id, user.email, user.name) == ("own-7", "ada@example.com", "Ada ☃")
    assert user.email_verified is False


@pytest.mark.parametrize(("token", "cookie", "size"), [("v4 big", V4, 3933), ("v5 big", V5, 3936)])
def test_a_token_that_the_packages_would_chunk_gives_its_user(tokens, token, cookie, size):
    whole = tokens[token]
    chunks = [whole[start : start + size] for start in range(0, len(whole), size)]
    assert len(chunks) > 1
    named = {f"__Secure-{cookie}.{index}": chunk for index, chunk in enumerate(chunks)}
    assert read(named).id == "own-7"


def test_a_token_under_the_newest_secret_of_several_gives_its_user(tokens):
    secrets = ("a newer secret", SECRET)
    assert read({V5: tokens["v5 newer"]}, auth_secrets=secrets).id == "own-7"
    assert read({V5: tokens["v5"]}, auth_secrets=secrets).id == "own-7"


@pytest.mark.parametrize(
    ("token", "cookie"),
    [
        ("v4 expired", V4),
        ("v5 expired", V5),
        ("v5", f"__Secure-{V5}"),
        ("v5 secure", V5),
        ("v5 newer", V5),
        ("v4", V5),
        ("v5", V4),
    ],
)
def test_a_token_that_must_not_count_gives_nobody(tokens, token, cookie):
    assert read({cookie: tokens[token]}) is None
