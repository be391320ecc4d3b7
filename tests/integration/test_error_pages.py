"""Failures as pages, for a person in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from yarl import URL

from inngest_outbox.identity.nextauth import NEXT_AUTH_4
from inngest_outbox.identity.sessions import Sessions
from inngest_outbox.web.server.security_headers import page_policy
from tests.support.service_client import service_client
from tests.support.session_tokens import SECRET, make

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
PROVIDER = {"OIDC_CLIENT_ID": "outbox"}
PRODUCTION = {"APP_ENV": "production", "SESSION_SECRET": "s" * 32}
AGAIN = "Open this address again in a moment."
START = """<h1>Outbox for Inngest</h1>
<p>This page is for development. <a href="/outbox">The operators' page</a> shows every event,
<a href="/docs">the description</a> every address.</p>
"""
SIGN_IN = f"""{START}<h2>Sign in</h2>
<form method="post" action="/auth/dev-login">
<input type="hidden" name="returnTo" value="/">
<label for="email">E-mail address</label>
<input id="email" name="email" type="email" required maxlength="254" value="kim@example.com">
<button>Sign in</button>
</form>
</main>
"""
POST = f"""{START}<p>Signed in as <b>%s</b>%s.
<button id="out" type="button">Sign out</button></p>
<h2>Post an event</h2>
<form id="post">
<label for="path">Address</label>
<select id="path">
<option value="/api/route" data-example="{{
  &#34;documentName&#34;: &#34;reports/2026.pdf&#34;
}}">/api/route: documents/aws.index</option>
</select>
<label for="body">Body</label>
<textarea id="body" rows="6" spellcheck="false"></textarea>
<button>Post</button>
</form>
<h2>What becomes of it</h2>
<ol id="log" aria-live="polite"></ol>
<script>"""
SESSION = {"Cookie": "next-auth.session-token=0b0f5a1e-8d6c-4f5f-9a52-2f5d3c1a7b90"}


@pytest.mark.parametrize(
    ("environ", "pages"),
    [
        (
            {},
            {
                "/outbox": (
                    401,
                    "<h1>Sign in</h1>",
                    'href="/auth/dev-login?returnTo=/outbox"',
                    "401 session_required",
                ),
                "/outbox/events/a%26b%3Fc": (
                    401,
                    'href="/auth/dev-login?returnTo=/outbox/events/a%26b%3Fc"',
                ),
                **{
                    f"/auth/login{query}": (
                        404,
                        "<h1>Nothing here</h1>",
                        f'OIDC_ISSUER is not set.</p><p><a href="/auth/dev-login?returnTo={path}"',
                    )
                    for query, path in (
                        ("", "/docs"),
                        ("?returnTo=/outbox/events%3Fstate=dead", "/outbox/events%3Fstate%3Ddead"),
                        ("?returnTo=//evil.example", "/"),
                    )
                },
            },
        ),
        (
            {"OIDC_ISSUER": "http://127.0.0.1:9", **PROVIDER},
            {
                "/outbox": (401, 'href="/auth/login?returnTo=/outbox"'),
                "/auth/callback?code=c&state=s": (
                    400,
                    "<h1>The sign-in failed</h1>",
                    "This sign-in was not started in this browser. Start again.",
                    'href="/auth/login?returnTo=/docs"',
                ),
                "/auth/login": (503, "<h1>This did not work</h1>", f"{AGAIN}</p><p><small>503"),
            },
        ),
        (
            PRODUCTION,
            {
                "/outbox": (401, "</p><p>Sign in at your front end, then open"),
                "/auth/login": (404, "OIDC_ISSUER is not set.</p><p>Sign in at your front end,"),
            },
        ),
    ],
    ids=["development", "provider", "production"],
)
async def test_a_page_says_what_is_missing_and_leads_on(
    tmp_path: Path, environ: dict[str, str], pages: dict[str, tuple[Any, ...]]
) -> None:
    async with service_client(tmp_path, **environ) as (_, client):
        for path, (status, *words) in pages.items():
            answer = await client.get(URL(path, encoded=True), headers=BROWSER)
            text = await answer.text()
            assert (answer.status, answer.content_type) == (status, "text/html"), path
            assert [one for one in words if one not in text] == []
            assert answer.headers["Vary"] == "Accept"
            assert (int(answer.headers.get("Retry-After", 0)) > 0) is (status == 503)


async def test_a_page_that_can_not_be_made_now_is_asked_for_again_later(tmp_path: Path) -> None:
    async with service_client(tmp_path, NEXTAUTH_URL="http://127.0.0.1:9") as (_, client):
        answer = await client.get("/outbox", headers=BROWSER | SESSION)
        text = await answer.text()
    assert answer.status == 503
    assert AGAIN in text
    assert "Sign in" not in text


async def test_each_answer_suits_who_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with service_client(tmp_path) as (_, client):
        assert SIGN_IN.replace("kim@", "ada@") in await (await client.get("/")).text()
        form = await client.post("/outbox/discard", headers=BROWSER)
        assert form.status == 401
        assert 'href="/auth/dev-login?returnTo=/outbox"' in await form.text()
        other = {"Accept": "application/xhtml+xml,text/html;q=0.9"}
        unknown = await client.get("/no/such/<page>", headers=other)
        text = await unknown.text()
        assert unknown.status == 404
        assert text.partition("<h1>")[2] == (
            "Nothing here</h1>\n<p>There is nothing here.</p>"
            '<p>The <a href="/docs">API\'s description</a> has every address.</p>'
            f"<p><small>404 not_found, request {unknown.headers['X-Request-Id']}</small></p>\n"
            "</main>\n</body>\n</html>"
        )
        wrong = await client.get("/api/route", headers=BROWSER)
        assert (wrong.status, wrong.headers["Allow"]) == (405, "POST")
        assert (await client.get("/docs", headers=BROWSER)).status == 200
        of_program = await client.get("/outbox", headers={"Accept": "*/*"})
        assert of_program.content_type == "application/json"
        assert '"session_required"' in await of_program.text()
        monkeypatch.setattr(Sessions, "user", None)  # a fault of ours
        with capture_logs():
            ours = await client.get("/", headers=BROWSER)
        text = await ours.text()
        words = ("did not work</h1>", "500 internal_error, request ", "API's description")
        assert (ours.status, [one for one in (*words, AGAIN) if one in text]) == (500, [*words])


async def test_the_start_page_is_for_development(tmp_path: Path) -> None:
    provider = {"OIDC_ISSUER": "https://identity.example.com", **PROVIDER}
    async with service_client(tmp_path, **provider) as (_, client):
        assert (
            '<a href="/auth/login?returnTo=/">Sign in</a>' in await (await client.get("/")).text()
        )
    types = tmp_path / "types.json"
    types.write_text('{"types": [{"name": "a/b", "path": "/api/a", "body": {"type": "object"}}]}')
    operators = {"OPERATOR_EMAILS": "kim@example.com, lea@example.com"}
    token = make("v4", b'{"exp": 4102444800, "sub": "u-<7>"}')
    nameless = {"Cookie": f"{NEXT_AUTH_4.cookie}={token}"}
    of_types = {"EVENT_TYPES_FILE": str(types), "NEXTAUTH_SECRET": SECRET}
    async with service_client(tmp_path, **of_types) as (_, client):
        without_example = '<option value="/api/a" data-example="{}">/api/a: a/b</option>'
        assert without_example in await (await client.get("/", headers=nameless)).text()
    async with service_client(tmp_path, **operators, NEXTAUTH_SECRET=SECRET) as (_, client):
        assert SIGN_IN in await (await client.get("/")).text()
        shown = await (await client.get("/", headers=nameless)).text()
        assert POST % ("u-&lt;7&gt;", "") in shown
        for name, is_operator in (("ada", False), ("lea", True)):
            email = f"{name}@example.com"
            await client.post("/auth/dev-login", json={"email": email})
            shown = POST % (email, ", an operator" * is_operator)
            assert shown in await (await client.get("/")).text()
            refused = await (await client.get("/outbox", headers=BROWSER)).text()
            words = (
                "<h1>For operators</h1>",
                "OPERATOR_EMAILS names them",
                "login?returnTo=/outbox",
            )
            assert [one in refused for one in words] == [not is_operator] * 3
    async with service_client(tmp_path, **operators, **PRODUCTION) as (_, client):
        assert (await client.get("/")).status == 404


def test_the_policy_of_a_page_names_its_scripts_by_digest():
    first = "'self' 'sha256-CImjRDTlhukYQ2AnxOi0wzgPhGQ3Mb3rVwJK24dFz1M='"
    both = f"{first} 'sha256-6ebDVMEX0Q2RjAHSOjG9gqwf5tL025wC5//fwos0ewY='"
    named = page_policy("1;", "2;", files=True)
    assert named.startswith(f"default-src 'none'; script-src {both}; style-src {both}; ")
    least = "style-src 'none'; connect-src 'self'; img-src 'self' data:; base-uri 'none'"
    ends = "frame-ancestors 'none'"
    assert page_policy() == (
        f"default-src 'none'; script-src 'none'; {least}; form-action 'none'; {ends}"
    )
    assert page_policy(files=True, forms=True) == (
        f"default-src 'none'; script-src 'self'; {least.replace('none', 'self', 1)}; "
        f"form-action 'self'; {ends}"
    )
