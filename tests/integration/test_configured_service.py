"""What a variable changes in a whole service, as a client sees it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs
from yarl import URL

from inngest_outbox.bootstrap import delivery, stores, watching, web_part
from inngest_outbox.bootstrap.identity import session_secrets
from inngest_outbox.config.settings import Settings
from inngest_outbox.dev.fake_inngest.functions import Function
from inngest_outbox.dev.fake_inngest.server import FakeInngest, FakeOptions
from inngest_outbox.documents.bucket import Bucket
from inngest_outbox.encryption import Encryption
from inngest_outbox.errors import ConfigurationError
from inngest_outbox.identity.user import User
from inngest_outbox.outbox.event import Event, Meta
from inngest_outbox.relay.relay import Relay
from inngest_outbox.supervisor import Supervisor
from inngest_outbox.web.server.body_budget import Share, body_budget_key
from inngest_outbox.web.server.proxies import proxies_key
from tests.support.confirmed_delivery import SIGNING_KEY, self_hosted
from tests.support.forged_provider import CLIENT_ID, CLIENT_SECRET, ForgedProvider
from tests.support.outbox_command import outbox_command, outbox_json
from tests.support.raw_http import send
from tests.support.service_client import Client, service_client
from tests.support.session_tokens import FLAVOURS, make
from tests.support.storage import PATIENCE_SECONDS, eventually

OLD, NEW = "the-older-secret-of-two", "the-newer-secret-of-two"
ADA = {"email": "ada@example.com", "id": "u-1"}
TOKEN = "a1" * 16
KEYS = "a:key-of-machine-a,b:key-of-machine-b"
PRODUCTION = {"APP_ENV": "production", "SESSION_SECRET": NEW, "INNGEST_EVENT_KEY": "key"}


@contextlib.asynccontextmanager
async def served(folder: Path, **environ: str) -> AsyncIterator[Client]:
    """A client of a service with these variables."""
    async with service_client(folder, keeps_cookies=False, **environ) as (_, client):
        yield client


async def signed_in(client: Client, user_id: str = ADA["id"], **headers: str) -> str:
    """The cookie of a new session, empty where there is no such sign-in."""
    user = {**ADA, "id": user_id}
    answer = await client.post("/auth/dev-login", json=user, headers=headers)
    assert answer.status in (200, 404)
    return answer.headers.get("Set-Cookie", "").partition(";")[0]


async def who(client: Client, cookie: str) -> str | None:
    answer = await client.get("/auth/session", headers={"Cookie": cookie})
    user = (await answer.json())["user"]
    return user and str(user["id"])


async def is_the_one_of_the_development_sign_in(client: Client, cookie: str) -> bool:
    """True when both users have the same settings."""
    await client.put("/api/settings", json={"a": cookie}, headers={"Cookie": cookie})
    headers = {"Cookie": await signed_in(client)}
    found = await (await client.get("/api/settings", headers=headers)).json()
    return bool(found.get("a") == cookie)


def held(event_id: str) -> Event:
    """An event of the development sign-in's user that is not due for long."""
    owner, later = User("dev", ADA["id"]).owner, Meta(due_at_ms=4_000_000_000_000)
    return Event(event_id, "a/b", owner, ADA["id"], 1_795_559_419_447, b"{}", later)


async def sent(client: Client, machine: str, event: dict[str, Any]) -> int:
    """The status of a post with the key of a machine."""
    headers = {"Authorization": f"Bearer key-of-machine-{machine}"}
    return (await client.post("/api/events", json=event, headers=headers)).status


async def test_of_several_session_secrets_the_first_signs_and_all_open(tmp_path: Path) -> None:
    async with served(tmp_path, SESSION_SECRET=OLD) as client:
        old = await signed_in(client)
    async with served(tmp_path, SESSION_SECRET=f"{NEW},{OLD}") as client:
        assert await who(client, old) == "u-1"
        new = await signed_in(client)
    async with served(tmp_path, SESSION_SECRET=NEW) as client:
        assert [await who(client, one) for one in (old, new)] == [None, "u-1"]


async def test_a_cookie_of_auth_js_counts_under_each_of_its_secrets(tmp_path: Path) -> None:
    secrets = {
        "AUTH_SECRET": f"{NEW}, {OLD}",
        "AUTH_SECRET_1": "the-first-numbered-secret",
        "AUTH_SECRET_2": "the-second-numbered-secret",
        "AUTH_SECRET_3": "the-third-numbered-secret",
    }
    claims = json.dumps({"sub": "u-9", "exp": time.time() + 600}).encode()
    known = [one for listed in secrets.values() for one in listed.split(", ")]
    async with served(tmp_path, **secrets) as client:
        for secret in (*known, "a-secret-that-is-not-configured"):
            cookie = f"{FLAVOURS['v5'].cookie}={make('v5', claims, secret=secret)}"
            assert await who(client, cookie) == ("u-9" if secret in known else None)


async def test_in_development_a_session_outlives_a_restart_without_a_secret(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        cookie = await signed_in(client)
    async with served(tmp_path) as client:
        assert await who(client, cookie) == "u-1"
    secret = tmp_path / "development-session-secret"
    assert secret.stat().st_mode & 0o077 == 0


async def test_the_system_defaults_are_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "defaults.json"
    file.write_text('{"ours": {"a": 1, "b": [1]}}')
    async with served(tmp_path, APP_SETTINGS_FILE=str(file)) as client:
        headers = {"Cookie": await signed_in(client)}
        own = {"ours": {"b": [2]}, "mine": None}
        answer = await client.put("/api/settings", json=own, headers=headers)
        assert await answer.json() == {"ours": {"a": 1, "b": [2]}, "mine": None}


PROXIED = {"X-Forwarded-For": "203.0.113.9"}
OTHER_NAME = {"Host": "outbox.example.com"}


@pytest.mark.parametrize(
    ("environ", "there", "not_there"),
    [
        ({}, [{}], [PROXIED, OTHER_NAME]),
        ({"DEV_LOGIN": "1"}, [PROXIED], [OTHER_NAME]),
        (PRODUCTION, [], [{}]),
    ],
    ids=["loopback", "DEV_LOGIN", "production"],
)
async def test_where_the_development_sign_in_is(
    tmp_path: Path,
    environ: dict[str, str],
    there: list[dict[str, str]],
    not_there: list[dict[str, str]],
) -> None:
    async with served(tmp_path, **environ) as client:
        for headers in (*there, *not_there):
            assert bool(await signed_in(client, **headers)) is (headers in there), headers
            form = await client.get("/auth/dev-login", headers=headers)
            assert form.status == (200 if headers in there else 404)


async def test_in_production_only_https_names_and_origins_count(tmp_path: Path) -> None:
    claims = json.dumps({"sub": "u-9", "exp": time.time() + 600}).encode()
    cookies = [
        f"{name}={make(version, claims, cookie=name, secret=OLD)}"
        for version in ("v4", "v5")
        for name in (FLAVOURS[version].cookie, f"__Secure-{FLAVOURS[version].cookie}")
    ]

    async def posted(client: Client, scheme: str) -> tuple[int, str | None]:
        headers = {"Origin": f"{scheme}://app.example.com", "Host": "app.example.com"}
        page = await client.get("/outbox", headers={"Accept": "text/html"})
        answer = await client.post("/auth/logout", headers=headers)
        [told] = {one.headers.get("Strict-Transport-Security") for one in (page, answer)}
        return answer.status, told

    async with served(tmp_path, AUTH_SECRET=OLD, **PRODUCTION) as client:
        assert [await who(client, one) for one in cookies] == [None, "u-9", None, "u-9"]
        assert await posted(client, "http") == (403, "max-age=31536000")
        assert await posted(client, "https") == (200, "max-age=31536000")
    async with served(tmp_path, AUTH_SECRET=OLD) as client:
        assert [await who(client, one) for one in cookies] == ["u-9"] * 4
        assert await posted(client, "http") == await posted(client, "https") == (200, None)
        headers = {"Origin": "https://app.example.com"}  # another site's
        assert (await client.post("/auth/logout", headers=headers)).status == 403
    async with served(tmp_path, ALLOWED_ORIGINS="https://app.example.com") as client:
        assert (await client.post("/auth/logout", headers=headers)).status == 200


@pytest.mark.parametrize(("proxies", "status"), [("127.0.0.1", 200), ("10.0.0.0/24", 403)])
async def test_a_forwarded_host_counts_from_a_trusted_proxy(
    tmp_path: Path, proxies: str, status: int
) -> None:
    async with service_client(tmp_path, TRUSTED_PROXIES=proxies) as (service, client):
        assert service.app[proxies_key].is_trusted("127.0.0.1") is (status == 200)
        cookie = await signed_in(client)
        headers = {
            "Cookie": cookie,
            "Origin": "https://www.example.com",
            "X-Forwarded-Host": "www.example.com",
            "X-Forwarded-Proto": "https",
        }
        answer = await client.put("/api/settings", json={}, headers=headers)
        assert answer.status == status


async def test_an_event_is_taken_back_by_one_request(tmp_path: Path) -> None:
    async with service_client(tmp_path, RATE_LIMIT_PER_USER="0.001") as (service, client):
        await service.outbox.intake.append(held("x"))
        await signed_in(client)
        assert [(await client.delete("/api/events/x")).status for _ in range(2)] == [204, 429]


async def test_an_operator_s_page_is_one_request(tmp_path: Path) -> None:
    given = {"RATE_LIMIT_PER_USER": "0.001", "OPERATOR_EMAILS": ADA["email"]}
    async with served(tmp_path, **given) as client:
        for path in ("", "/names", "/events", "/audit"):
            headers = {"Cookie": await signed_in(client, f"reads {path}")}
            pages = [await client.get(f"/outbox{path}", headers=headers) for _ in range(2)]
            assert [page.status for page in pages] == [200, 429]


async def test_the_memory_of_large_requests_is_bounded_as_it_is_set(tmp_path: Path) -> None:
    bucket = {"AWS_S3_BUCKET": "b", "AWS_S3_REGION": "eu-west-1", "DOCUMENT_CHECK": "off"}
    given = {"OUTBOX_MAX_BODY_BYTES_IN_FLIGHT": "100MiB", "OUTBOX_EVENT_KEYS": KEYS, **bucket}
    async with service_client(tmp_path, **given) as (service, client):
        share = Share(service.app[body_budget_key], "127.0.0.1")
        await share.grow(2**30)
        assert share.size_bytes == 25 * 1024 * 1024
        # Behind a proxy every request has one peer: a body counts for who sends it.
        key = KEYS.partition(",")[0].removeprefix("a:")
        by_key = {"Authorization": f"Bearer {key}"}
        large = {"name": "a", "documentName": "a.pdf", "data": {"x": "x" * 100_000}}
        await signed_in(client)
        for path, headers in ((f"/e/{key}", {}), ("/api/events", by_key), ("/api/route", {})):
            assert (await client.post(path, json=large, headers=headers)).status == 200
        share.release()


async def test_waits_end_with_their_time_with_their_event_and_with_a_stop(tmp_path: Path) -> None:
    given = {"OPERATOR_EMAILS": ADA["email"]}
    async with (
        service_client(tmp_path, **given) as (service, client),
        asyncio.timeout(PATIENCE_SECONDS),
    ):
        await service.outbox.intake.append(held("x"))
        await service.outbox.intake.append(held("y"))
        await signed_in(client)
        taken_back = await client.get("/api/events/y/stream")
        assert (await client.get("/api/events/y?wait=1")).status == 200
        await client.delete("/api/events/y")
        await taken_back.read()
        of_event, of_page, another = streams = [
            await client.get(path)
            for path in ("/api/events/x/stream", "/outbox/live", "/outbox/live")
        ]
        assert of_event.headers.getall("Cache-Control") == ["no-store, no-transform"]
        assert of_page.headers["Cache-Control"] == another.headers["Cache-Control"] == "no-store"
        for stream in streams:
            assert stream.content_type == "text/event-stream"
            assert stream.headers["Server"] == "outbox"
            await stream.content.readuntil(b"\n\n")
        await service.app.shutdown()
        for stream in streams:
            await stream.read()


@pytest.fixture
async def front_end(aiohttp_server: Any) -> str:
    async def session(request: web.Request) -> web.Response:
        cookies = request.headers["Cookie"]
        answer = web.json_response({"user": {"id": "u-1" if cookies.endswith(TOKEN) else cookies}})
        answer.set_cookie("next-auth.session-token", TOKEN)
        return answer

    front = web.Application()
    front.add_routes([web.get("/api/auth/session", session)])
    return str((await aiohttp_server(front)).make_url("").with_host("localhost"))


@pytest.mark.parametrize("shared", ["true", "false"])
async def test_a_user_of_the_front_end_is_that_of_other_sign_ins_where_ids_are_shared(
    tmp_path: Path, front_end: str, shared: str
) -> None:
    given = {"NEXTAUTH_URL": front_end, "USER_IDS_SHARED": shared, "AUTH_SECRET": OLD}
    given["JWT_ISSUER"] = "https://issuer.example"  # beside it
    claims = json.dumps({"sub": ADA["id"], "exp": time.time() + 600}).encode()
    sealed = f"{FLAVOURS['v5'].cookie}={make('v5', claims, secret=OLD)}"
    async with served(tmp_path, **given) as client:
        assert await is_the_one_of_the_development_sign_in(client, sealed) is (shared == "true")
        theirs, another = (f"next-auth.session-token={token}" for token in (TOKEN, "b2" * 16))
        for cookie in (theirs, f"authjs.session-token={TOKEN}"):
            assert await who(client, cookie) == "u-1"
        assert await who(client, another) == another  # the cookie of that answer is in no question
        assert await is_the_one_of_the_development_sign_in(client, theirs) is (shared == "true")


async def test_in_production_a_front_end_is_asked_about_its_https_cookie_alone(
    tmp_path: Path, front_end: str
) -> None:
    async with served(tmp_path, **PRODUCTION, NEXTAUTH_URL=front_end) as client:
        assert await who(client, f"__Secure-next-auth.session-token={TOKEN}") == "u-1"
        assert await who(client, f"next-auth.session-token={TOKEN}") is None


async def test_figures_and_start_page_are_as_the_variables_say(tmp_path: Path) -> None:
    given = {"METRICS_TOKEN": TOKEN, "OPERATOR_EMAILS": "op@example.com"}
    async with served(tmp_path, **given) as client:
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        for headers, status in ((PROXIED, 401), (PROXIED | bearer, 200)):
            assert (await client.get("/metrics", headers=headers)).status == status
        head = b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer "
        assert (await send(client.port, head + b"\xff\r\n\r\n"))[0] == 401  # no text
        assert "op@example.com" in await (await client.get("/")).text()


@pytest.mark.parametrize(
    ("environ", "scheme", "is_shared"),
    [
        ({}, "http", False),
        ({"USER_IDS_SHARED": "true"}, "http", True),
        (PRODUCTION, "https", None),
    ],
    ids=["apart", "shared", "production"],
)
async def test_a_sign_in_at_the_provider(
    tmp_path: Path, environ: dict[str, str], scheme: str, *, is_shared: bool | None
) -> None:
    """`is_shared` says whose id the development sign-in's is then, where there is one."""
    async with ForgedProvider() as provider:
        provider.claims = {"sub": ADA["id"]}
        oidc = {
            "OIDC_ISSUER": f"{provider.issuer}/",
            "OIDC_CLIENT_ID": CLIENT_ID,
            "OIDC_CLIENT_SECRET": CLIENT_SECRET,
            "TRUSTED_PROXIES": "10.0.0.0/24",
        }
        async with service_client(tmp_path, keeps_cookies=False, **oidc, **environ) as (
            service,
            client,
        ):
            forwarded = {"X-Forwarded-Host": "elsewhere.example"}
            begun = await client.get("/auth/login", headers=forwarded, allow_redirects=False)
            attempt = begun.headers["Set-Cookie"]
            assert ("; Secure" in attempt) is (scheme == "https")
            asked = dict(URL(begun.headers["Location"]).query)
            own = URL(asked["redirect_uri"])
            assert (own.scheme, own.host) == (scheme, "127.0.0.1")
            back = {"code": provider.authorize(asked), "state": asked["state"]}
            headers = {"Cookie": attempt.partition(";")[0]}
            ended = await client.get(
                "/auth/callback", params=back, headers=headers, allow_redirects=False
            )
            assert ended.status == 302
            assert all(bool(one["secure"]) is (scheme == "https") for one in ended.cookies.values())
            user = "; ".join(f"{name}={one.value}" for name, one in ended.cookies.items())
            if is_shared is not None:
                assert 'href="/auth/login' in await (await client.get("/")).text()
                assert await is_the_one_of_the_development_sign_in(client, user) is is_shared
            if is_shared is False:
                owner = f"{provider.issuer} {ADA['id']}"
                assert await service.outbox.scopes.load_scope("user", owner) == {"a": user}


@pytest.mark.parametrize(
    ("environ", "senders", "statuses"),
    [
        ({"OUTBOX_MAX_PENDING": "1", "OUTBOX_MAX_PENDING_PER_USER": "2"}, "ab", [200, 503]),
        ({"OUTBOX_MAX_PENDING": "2", "OUTBOX_MAX_PENDING_PER_USER": "1"}, "aba", [200, 200, 429]),
    ],
)
async def test_how_much_is_taken(
    store_url: str, tmp_path: Path, environ: dict[str, str], senders: str, statuses: list[int]
) -> None:
    given = {"OUTBOX_URL": store_url, "SESSION_SECRET": NEW, "OUTBOX_EVENT_KEYS": KEYS}
    async with served(tmp_path, **given, **environ) as client:
        assert [await sent(client, one, {"name": "a/b"}) for one in senders] == statuses


async def test_machines_that_share_ids_send_the_same_one(
    store_url: str, tmp_path: Path, inngest_api: FakeInngest
) -> None:
    given = {
        "OUTBOX_URL": store_url,
        "SESSION_SECRET": NEW,
        "OUTBOX_EVENT_KEYS": f"{KEYS},c:key-of-machine-c",
        "OUTBOX_EVENT_IDS_SHARED": "a,b",
        "INNGEST_DEV": inngest_api.url,
    }
    async with served(tmp_path, **given) as client:
        for senders in ("ab", "ac", "ca"):
            for one in senders:
                assert await sent(client, one, {"name": "a/b", "id": senders}) == 200
        await inngest_api.ledger.wait_for_arrivals(6)
        assert [inngest_api.ledger.times(one) for one in ("ab", "ac", "ca")] == [2, 1, 1]


@pytest.mark.parametrize(
    ("environ", "days", "left"),
    [
        ({"OUTBOX_RETENTION": "1d"}, [2], []),
        ({"OUTBOX_PAYLOAD_RETENTION": "3d"}, [8, 4, 2], [(True,), (False,)]),
    ],
)
async def test_delivered_events_and_their_payloads_leave_after_their_time(
    tmp_path: Path,
    inngest_api: FakeInngest,
    environ: dict[str, str],
    days: list[int],
    left: list[tuple[bool]],
) -> None:
    given = {"OUTBOX_EVENT_KEYS": KEYS, "INNGEST_DEV": inngest_api.url}
    async with served(tmp_path, **given) as client:
        for _ in days:
            assert await sent(client, "a", {"name": "a/b"}) == 200
        await inngest_api.ledger.wait_for_arrivals(len(days))
    with contextlib.closing(sqlite3.connect(tmp_path / "outbox.db")) as file:
        with file:
            events = [seq for (seq,) in file.execute("SELECT seq FROM outbox ORDER BY seq")]
            for seq, age in zip(events, days, strict=True):
                for table, at in (("", "accepted_at"), ("_done", "settled_at"), ("_done", "ran")):
                    older = f"{at}_ms = {at}_ms - {age} * 86400000"
                    file.execute(f"UPDATE outbox{table} SET {older} WHERE seq = {seq}")

        async def payloads() -> list[tuple[bool]]:
            return file.execute("SELECT length(payload) = 0 FROM outbox").fetchall()

        assert await payloads() == [(False,)] * len(days)
        async with served(tmp_path, **given, **environ):
            await eventually(payloads, lambda found: found == left)


async def test_readiness_says_where_events_go_and_whether_they_are_confirmed(
    tmp_path: Path,
) -> None:
    async with served(tmp_path, OUTBOX_CONFIRM="off") as client:
        told = (await (await client.get("/readyz")).json())["detail"]
        assert (told["inngest"], told["confirmation"]) == ("dev server", "off (OUTBOX_CONFIRM)")
        stats = await eventually(
            lambda: outbox_json(tmp_path / "outbox.db", "stats"), lambda said: said["destination"]
        )
        assert (stats["destination"], stats["confirmation"]) == (
            told["inngest"],
            told["confirmation"],
        )


async def test_an_operator_is_led_to_the_event_in_the_ui_of_inngest(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    given = {
        "OUTBOX_EVENT_KEYS": KEYS,
        "OPERATOR_EMAILS": ADA["email"],
        "INNGEST_DEV": inngest_api.url,
        "INNGEST_UI_URL": "https://ui.example",
    }
    async with served(tmp_path, **given) as client:
        headers = {"Authorization": "Bearer key-of-machine-a"}
        posted = await client.post("/api/events", json={"name": "a/b"}, headers=headers)
        [event_id] = (await posted.json())["eventIds"]
        await inngest_api.ledger.wait_for_arrivals(1)
        cookie = {"Cookie": await signed_in(client)}

        async def page() -> str:
            return await (await client.get(f"/outbox/events/{event_id}", headers=cookie)).text()

        await eventually(page, lambda found: "https://ui.example/" in found)


async def test_runs_are_told_as_the_variables_say(tmp_path: Path, inngest_api: FakeInngest) -> None:
    given = {
        "OUTBOX_EVENT_KEYS": KEYS,
        "INNGEST_DEV": inngest_api.url,
        "OUTBOX_NO_RUN_AFTER": "100ms",
        "OUTBOX_ENCRYPTION_KEY": TOKEN,
    }
    headers = {"Authorization": "Bearer key-of-machine-a"}
    encrypted = Encryption([TOKEN]).encrypt({"pages": 3}, None)["encrypted"]
    inngest_api.runs.declare(Function(id="one", trigger="a/b", returns=encrypted))

    async def told(name: str) -> str:
        posted = await client.post("/api/events", json={"name": name}, headers=headers)
        [event_id] = (await posted.json())["eventIds"]
        stream = await client.get(f"/api/events/{event_id}/stream", headers=headers)
        return await stream.text()

    async with served(tmp_path, **given) as client, asyncio.timeout(PATIENCE_SECONDS):
        assert '"noRun":true' in await told("none")
        [listed] = (await (await client.get("/api/events", headers=headers)).json())["events"]
        assert listed["final"] is False  # a list asks for no runs
        assert '"output":{"pages":3}' in await told("a/b")


async def test_a_relay_that_hangs_makes_the_service_unready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert delivery._HUNG_SECONDS == 30.0  # as the documentation says
    monkeypatch.setattr(delivery, "_HUNG_SECONDS", 0.1)
    monkeypatch.setattr(Relay, "run", lambda self: asyncio.Event().wait())
    async with served(tmp_path, OUTBOX_EVENT_KEYS=KEYS) as client:

        async def faults() -> list[str]:
            return list((await (await client.get("/readyz")).json())["faults"])

        await eventually(faults, lambda told: any("relay" in one for one in told))


async def test_inngest_has_five_seconds_to_answer_a_question_about_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []
    for module in (watching, web_part):
        monkeypatch.setattr(
            module, "make_rest_api", lambda *_, timeout_seconds: limits.append(timeout_seconds)
        )
    async with served(tmp_path):
        assert limits == [5.0, 5.0]


@pytest.mark.parametrize(("mode", "opens"), [("off", False), ("enrich", True), ("require", True)])
async def test_a_bucket_is_opened_at_the_start_where_posts_ask_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, *, opens: bool
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(Bucket, "open_soon", lambda bucket: opened.append(bucket.name))
    given = {"AWS_S3_REGION": "eu-west-1", "AWS_S3_BUCKET": "documents", "DOCUMENT_CHECK": mode}
    async with served(tmp_path, **given):
        assert opened == (["documents"] if opens else [])


async def test_a_service_that_works_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats: set[str] = set()
    monkeypatch.setattr(Supervisor, "beat", lambda _, name: beats.add(name))
    async with served(tmp_path, OUTBOX_EVENT_KEYS=KEYS) as client:
        await eventually(lambda: "relay" in beats)

        async def figures() -> str:
            return await (await client.get("/metrics")).text()

        lag = re.compile(r"\noutbox_event_loop_lag_seconds \S*[1-9]")
        await eventually(figures, lambda said: lag.search(said) is not None)


async def test_readiness_says_that_delivery_is_paused_and_that_inngest_can_not_be_asked(
    tmp_path: Path,
) -> None:
    async with FakeInngest(options=FakeOptions(signing_key=SIGNING_KEY)) as api:
        given = self_hosted(api.url, INNGEST_SIGNING_KEY="signkey-test-ff")
        del given["OUTBOX_DRAIN_SECONDS"]
        async with served(tmp_path, INNGEST_DEV="", OUTBOX_EVENT_KEYS=KEYS, **given) as client:

            async def state(of: str) -> str | None:
                told = (await (await client.get("/readyz")).json())["detail"][of]
                return told["state"] if isinstance(told, dict) else None

            assert await sent(client, "a", {"name": "a/b"}) == 200
            await eventually(lambda: state("confirmation"), lambda said: said == "failing")
            assert (await outbox_command(tmp_path / "outbox.db", "pause"))[0] == 0
            await eventually(lambda: state("delivery"), lambda said: said == "paused")


async def test_a_secret_is_made_beside_the_usual_file_where_the_outbox_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.load({"OUTBOX_URL": "postgresql://h/x"})
    made = session_secrets(settings)
    assert made == session_secrets(settings)
    with monkeypatch.context() as raced:
        raced.setattr(Path, "exists", lambda _: False)  # another process made it meanwhile
        assert made == session_secrets(settings)
    secret = tmp_path / "data" / "development-session-secret"
    assert made == [secret.read_text()]
    secret.unlink()
    secret.mkdir()
    with pytest.raises(ConfigurationError, match="SESSION_SECRET: none is set, and data/"):
        session_secrets(settings)


@pytest.mark.parametrize(("journal", "is_told"), [("", True), ("s3://bucket/a", False)])
async def test_an_outbox_that_may_be_lost_with_its_container_is_told_unless_a_journal_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: str, *, is_told: bool
) -> None:
    monkeypatch.setattr(stores, "loss_of_volume", lambda path: f"{path} is in the image.")
    given = {"OUTBOX_JOURNAL": journal, "AWS_S3_REGION": "eu-west-1"}
    with capture_logs() as logged:
        async with served(tmp_path, **given):
            pass
    told = [line["reason"] for line in logged if line["event"] == "outbox_may_be_lost"]
    assert told == ([f"{tmp_path / 'outbox.db'} is in the image."] if is_told else [])
