"""Equal ids of two issuers are two users, and one's uploads are one's own."""

from __future__ import annotations

import hashlib
import json

import pytest
from aiohttp import ClientSession

from inngest_outbox.dev.fake_inngest.server import FakeInngest
from inngest_outbox.documents.document_name import upload_prefix
from tests.support.fleet import environment
from tests.support.front_end import SECRET
from tests.support.poster import Poster
from tests.support.service_here import service_here
from tests.support.session_tokens import FLAVOURS, make

BODY = {"documentName": "example"}


def bearer(version: str, **claims: object) -> dict[str, str]:
    token = make(version, json.dumps({"exp": 4_102_444_800, **claims}).encode(), secret=SECRET)
    return {"Cookie": f"{FLAVOURS[version].cookie}={token}"}


@pytest.fixture
async def url(tmp_path, inngest_api: FakeInngest, request, monkeypatch):
    changes = getattr(request, "param", {})
    settings = environment(
        f"sqlite:///{tmp_path / 'outbox.db'}", inngest_api.url, NEXTAUTH_SECRET=SECRET, **changes
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, settings[name])
    async with service_here(settings) as service:
        yield service.url


class Asking:
    def __init__(self, http: ClientSession, url: str) -> None:
        self.http, self.url = http, url

    async def __call__(self, method: str, path: str, who: dict[str, str], **options):
        headers = {**who, **options.pop("headers", {})}
        async with self.http.request(method, self.url + path, headers=headers, **options) as found:
            self.headers = found.headers
            return found.status, json.loads(await found.text() or "null")


@pytest.fixture
async def ask(url):
    async with ClientSession() as http:
        yield Asking(http, url)


@pytest.fixture
async def people(url):
    """The same id from three issuers: next-auth 4 (as text and as number), Auth.js 5, own."""
    browser = Poster(url)
    await browser.sign_in("1")
    [cookie] = [f"{one.key}={one.value}" for one in browser.http.cookie_jar]
    await browser.http.close()
    return {
        "next-auth": bearer("v4", sub="1"),
        "authjs": bearer("v5", sub="1"),
        "dev": {"Cookie": cookie},
    }


async def test_equal_ids_of_two_issuers_share_nothing(ask, people):
    events, settings, prefixes = {}, {}, set()
    key = {"Idempotency-Key": "the-same-key"}
    for name, who in people.items():
        status, posted = await ask("POST", "/api/route", who, json=BODY, headers=key)
        assert (status, "Idempotent-Replayed" in ask.headers) == (200, False)
        events[name] = posted["eventId"]
        settings[name] = {"mine": name}
        await ask("PUT", "/api/settings", who, json=settings[name])
        upload = {"documentName": "a", "contentType": "text/plain", "size": 1}
        prefixes.add((await ask("POST", "/api/uploads", who, json=upload))[1]["documentName"])
    assert len(prefixes) == 3
    for name, who in people.items():
        for owner, event_id in events.items():
            status, _ = await ask("GET", f"/api/events/{event_id}", who)
            assert status == (200 if owner == name else 404)
        assert (await ask("GET", "/api/settings", who))[1]["mine"] == name
        _, page = await ask("GET", "/api/events", who)
        assert [one["id"] for one in page["events"]] == [events[name]]
    # A number and a text are the same id of one issuer.
    of_text = f"/api/events/{events['next-auth']}"
    assert (await ask("GET", of_text, bearer("v4", id=1)))[0] == 200


@pytest.mark.parametrize("url", [{"USER_IDS_SHARED": "true"}], indirect=True)
async def test_shared_ids_are_one_user(ask, people):
    _, posted = await ask("POST", "/api/route", people["dev"], json=BODY)
    for who in people.values():
        assert (await ask("GET", f"/api/events/{posted['eventId']}", who))[0] == 200


OTHERS = f"{upload_prefix('dev 2')}salary.pdf"


async def test_an_upload_of_another_user_is_as_if_it_was_not_there(ask, people):
    own = hashlib.sha256(b"dev 1").hexdigest()[:32]
    spelled = [OTHERS, f"//{OTHERS}", OTHERS.replace("/", "//", 1), f"/users/{own}/a.pdf"]
    for name in (*spelled, "users/x", f"users/{'0' * 32}/a"):
        status, body = await ask("POST", "/api/route", people["dev"], json={"documentName": name})
        assert (status, body["code"]) == (404, "document_not_found"), name
    for name in (f"users/{own}/a.pdf", "example", "user/x", "a/users/x", "Users/x", "users"):
        status, _ = await ask("POST", "/api/route", people["dev"], json={"documentName": name})
        assert status == 200, name


@pytest.mark.parametrize("url", [{"DOCUMENT_SCOPE": "own"}], indirect=True)
async def test_with_the_scope_own_nothing_but_ones_uploads_can_be_posted(ask, people):
    for other in (BODY, {"documentName": OTHERS}):
        status, body = await ask("POST", "/api/route", people["dev"], json=other)
        assert (status, body["code"]) == (404, "document_not_found")
    own = {"documentName": f"{upload_prefix('dev 1')}a"}
    assert (await ask("POST", "/api/route", people["dev"], json=own))[0] == 200


@pytest.mark.parametrize("url", [{"DOCUMENT_SCOPE": "any"}], indirect=True)
async def test_with_the_scope_any_every_document_can_be_posted(ask, people):
    assert (await ask("POST", "/api/route", people["dev"], json={"documentName": OTHERS}))[0] == 200


@pytest.mark.parametrize("url", [{"RATE_LIMIT_PER_USER": "0.001"}], indirect=True)
async def test_a_user_who_asks_too_fast_is_told_when_to_come_back(ask, people):
    statuses = [(await ask("GET", "/api/settings", people["dev"]))[0] for _ in range(3)]
    assert statuses == [200, 429, 429]
    status, body = await ask("POST", "/api/route", people["dev"], json=BODY)
    assert (status, body["code"]) == (429, "rate_limited")
    assert 0 < int(ask.headers["Retry-After"]) <= 1000
    assert (await ask("GET", "/api/settings", people["authjs"]))[0] == 200


async def test_signing_out_everywhere_ends_the_sessions_of_one_issuer_only(ask, people, url):
    elsewhere = Poster(url)
    await elsewhere.sign_in("1")
    await elsewhere.ask("POST", "/auth/logout")
    assert (await ask("GET", "/auth/session", people["dev"]))[1]["user"]["id"] == "1"
    await elsewhere.sign_in("1")
    for query in ("everywhere=0", "everywhere=1&everywhere=1", "everywhere"):
        status, answer = await ask("POST", f"/auth/logout?{query}", people["dev"])
        assert (status, answer["code"]) == (400, "invalid_field"), query
        assert answer["error"] == "everywhere is 1 or not given."
    status, _ = await ask("POST", "/auth/logout?everywhere=1", people["dev"])
    assert status == 200
    assert (await elsewhere.ask("GET", "/auth/session"))[1] == {"user": None}
    assert (await ask("GET", "/auth/session", people["authjs"]))[1]["user"]["id"] == "1"
    await elsewhere.http.close()


@pytest.mark.parametrize("url", [{"OUTBOX_MAX_BYTES_PER_USER": "20000"}], indirect=True)
async def test_a_user_whose_stored_events_are_large_is_refused_while_others_are_not(ask, people):
    """Settings are small to send once and large to store with each event."""
    await ask("PUT", "/api/settings", people["dev"], json={"pad": "x" * 9_000})
    statuses = [(await ask("POST", "/api/route", people["dev"], json=BODY))[0] for _ in range(4)]
    assert statuses == [200, 200, 429, 429]
    status, body = await ask("POST", "/api/route", people["dev"], json=BODY)
    assert (status, body["code"]) == (429, "too_many_pending")
    assert (await ask("POST", "/api/route", people["authjs"], json=BODY))[0] == 200


@pytest.mark.parametrize("url", [{"OUTBOX_MAX_BYTES": "10000"}], indirect=True)
async def test_an_outbox_whose_bytes_are_used_up_refuses_everybody(ask, people):
    await ask("PUT", "/api/settings", people["dev"], json={"pad": "x" * 9_000})
    assert (await ask("POST", "/api/route", people["dev"], json=BODY))[0] == 200
    answers = [await ask("POST", "/api/route", people["authjs"], json=BODY) for _ in range(5)]
    status, body = answers[-1]
    assert (status, body["code"]) == (503, "outbox_full")
