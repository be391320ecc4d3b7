"""Tokens that next-auth 4.24.15 and @auth/core 0.41.3 made, and tokens that nobody should take."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from urllib.parse import quote

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import example, given, settings
from hypothesis import strategies as st
from joserfc.jwe import JWERegistry, encrypt_compact
from joserfc.jwk import OctKey

from service.identity.cookie_session import CookieSessionStorage
from service.identity.nextauth import (
    AUTH_JS_5,
    NEXT_AUTH_4,
    NextAuthReader,
    _derive_key,
    next_auth_readers,
)
from service.identity.sessions import Sessions
from service.identity.user import User

NOW = 1_800_000_000
SECRET = "0123456789abcdef0123456789abcdef"
FLAVOURS = {"v4": NEXT_AUTH_4, "v5": AUTH_JS_5}
VECTORS = json.loads((Path(__file__).parent / "nextauth-vectors.json").read_text("utf-8"))
ADA = {"sub": "user-123", "name": "Ada", "email": "ada@example.test", "exp": NOW + 60}
EACH = pytest.mark.parametrize("version", ["v4", "v5"])


def clock() -> float:
    return NOW


def cases(kind: str):
    return [
        pytest.param(version, case, id=f"{version}-{index}")
        for version in FLAVOURS
        for index, case in enumerate(VECTORS[version][kind])
    ]


def reader(version: str, secret=SECRET) -> NextAuthReader:
    return NextAuthReader(
        FLAVOURS[version], [secret] if isinstance(secret, str) else secret, clock=clock
    )


def request_with(cookies: dict[str, str], **headers: str) -> web.Request:
    pairs = "; ".join(f"{name}={value}" for name, value in cookies.items())
    return make_mocked_request("GET", "/", headers={"Cookie": pairs, **headers})


def user(found) -> User | None:
    return found and found["user"]


def make(
    version: str, plain: bytes, *, cookie: str | None = None, secret: str = SECRET, **header
) -> str:
    flavour = FLAVOURS[version]
    key = _derive_key(flavour, secret, cookie or flavour.cookie)
    whole = {"alg": "dir", "enc": flavour.encryption, **header}
    if version == "v5":
        whole.setdefault("kid", key.kid)
    secret_key = key.key
    if whole["enc"] == "A128GCM":
        secret_key = OctKey.import_key(secret_key.raw_value[:16])
    algorithms = JWERegistry(algorithms=[whole["alg"], whole["enc"], "DEF"])
    return encrypt_compact(whole, plain, secret_key, registry=algorithms)


def made(version: str, **claims) -> str:
    present = {name: value for name, value in {**ADA, **claims}.items() if value is not ...}
    return make(version, json.dumps(present).encode())


def load(version: str, token: str) -> User | None:
    return user(reader(version).load(request_with({FLAVOURS[version].cookie: token})))


@pytest.mark.parametrize(("version", "case"), cases("vectors"))
def test_a_real_token_gives_its_user(version, case):
    found = reader(version, case["secret"]).load(request_with({case["cookie_name"]: case["token"]}))
    assert user(found) == User("user-123", "ada@example.test", "Ada Lovelace")
    assert found["good_until"] == case["exp"] + 15
    assert found.new is False


@pytest.mark.parametrize(("version", "case"), cases("vectors"))
def test_the_key_is_the_one_that_the_packages_derive(version, case):
    keys = [
        _derive_key(FLAVOURS[version], secret, case["cookie_name"])
        for secret in ([case["secret"]] if isinstance(case["secret"], str) else case["secret"])
    ]
    assert case["derived_key_hex"] in [found.key.raw_value.hex() for found in keys]
    if version == "v5":
        assert case["header"]["kid"] in [found.kid for found in keys]


@pytest.mark.parametrize(("version", "case"), cases("negative"))
def test_a_real_token_that_must_not_count_gives_nobody(version, case):
    cookies = {case["cookie_name"]: case["token"]}
    assert reader(version, case["secret"]).load(request_with(cookies)) is None


@EACH
def test_a_real_token_in_chunks_gives_its_user(version):
    case = VECTORS[version]["chunked"]
    found = reader(version, case["secret"]).load(request_with(case["cookies"]))
    assert user(found) == User("user-123", "ada@example.test", "Ada Lovelace")


@EACH
def test_chunks_with_a_gap_give_nobody(version):
    case = VECTORS[version]["chunked"]
    moved = {name.replace(".1", ".2"): value for name, value in case["cookies"].items()}
    assert reader(version, case["secret"]).load(request_with(moved)) is None


@EACH
def test_a_bearer_token_is_taken_as_the_packages_take_it(version):
    token = quote(made(version))
    headers = {"Authorization": f"Bearer {token}"}
    assert user(reader(version).load(request_with({}, **headers))).id == "user-123"
    assert reader(version).load(request_with({}, Authorization=f"Basic {token}")) is None


class TestClaims:
    @EACH
    @pytest.mark.parametrize(
        ("claims", "expected"),
        [
            ({"id": "u-9"}, "u-9"),
            ({"id": 42}, "42"),
            ({"id": ""}, "user-123"),
            ({"id": None}, "user-123"),
            ({"id": True}, "user-123"),
            ({"id": {"a": 1}}, "user-123"),
            ({"id": "nul\x00"}, "user-123"),
            ({"id": "\ud800"}, "user-123"),
            ({"id": "x" * 256}, "user-123"),
        ],
    )
    def test_the_id_is_the_claim_id_where_it_is_usable_else_sub(self, version, claims, expected):
        assert load(version, made(version, **claims)).id == expected

    @EACH
    @pytest.mark.parametrize("sub", [..., None, "", "  ", 1.5, [], "a\nb"])
    def test_without_a_usable_id_there_is_nobody(self, version, sub):
        assert load(version, made(version, sub=sub)) is None

    @EACH
    @pytest.mark.parametrize(("given_", "expected"), [(True, True), ("true", False), (1, False)])
    def test_an_email_is_verified_only_where_the_claim_is_true(self, version, given_, expected):
        assert load(version, made(version, email_verified=given_)).email_verified is expected

    @EACH
    def test_an_organization_comes_along(self, version):
        assert load(version, made(version, organizationId="org-7")).organization_id == "org-7"

    @EACH
    def test_half_a_surrogate_pair_in_a_name_is_replaced(self, version):
        assert load(version, made(version, name="Ada \ud83d")).name == "Ada ?"

    @EACH
    @pytest.mark.parametrize("seconds", [1, 0, -14])
    def test_a_token_counts_for_fifteen_seconds_more(self, version, seconds):
        assert load(version, made(version, exp=NOW + seconds)) is not None

    @EACH
    @pytest.mark.parametrize(
        "claims",
        [
            {"exp": NOW - 15},
            {"exp": ...},
            {"exp": None},
            {"exp": str(NOW + 60)},
            {"exp": True},
            {"exp": float("nan")},
            {"exp": float("inf")},
            {"exp": 10**400},
            {"nbf": NOW + 16},
            {"nbf": "soon"},
            {"nbf": True},
        ],
        ids=str,
    )
    def test_outside_its_time_a_token_gives_nobody(self, version, claims):
        assert load(version, made(version, **claims)) is None


PLAIN = json.dumps(ADA).encode()
HEADER_NONE = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
DEEP_HEADER = base64.urlsafe_b64encode(b"[" * 700).rstrip(b"=").decode()


@EACH
@pytest.mark.parametrize(
    "forge",
    [
        lambda v: make(v, PLAIN, secret="another secret, long enough"),
        lambda v: make(v, PLAIN, kid="no-such-key"),
        lambda v: make(v, PLAIN, zip="DEF"),
        lambda v: make(v, b"[]"),
        lambda v: make(v, b"null"),
        lambda v: make(v, b"{"),
        lambda v: make(v, b"\xff"),
        lambda v: make(v, b"[" * 30_000)[:32_000],
        lambda v: make(v, b'{"exp":' + b"[" * 15_000),
        lambda v: make(v, PLAIN + b" " * 40_000),
        lambda v: made(v)[:-2],
        lambda v: made(v) + ".x",
        lambda v: "." + made(v),
        lambda v: made(v).replace("..", ".AAAA."),
        lambda v: made(v).replace("..", "."),
        lambda v: made(v).rsplit(".", 1)[0] + ".",
        lambda v: made(v).rsplit(".", 1)[0] + "." + "A" * 22,
        lambda _: f"{HEADER_NONE}.{base64.urlsafe_b64encode(PLAIN).decode()}.",
        lambda _: f"{DEEP_HEADER}..AAAA.AAAA.AAAA",
        lambda _: f"{HEADER_NONE}..AAAA.AAAA.AAAA",
        lambda _: "5f8c6e7d-an-opaque-database-session-token",
        lambda _: "....",
        lambda _: "A" * 100_000,
        lambda _: "\xe4",
    ],
)
def test_a_forged_token_gives_nobody(version, forge):
    assert load(version, forge(version)) is None


def test_the_other_encryption_of_auth_js_is_not_taken():
    raw = _derive_key(AUTH_JS_5, SECRET, AUTH_JS_5.cookie).key.raw_value
    header = {"alg": "dir", "enc": "A256GCM"}
    token = encrypt_compact(header, PLAIN, OctKey.import_key(raw[:32]), ["dir", "A256GCM"])
    assert load("v5", token) is None


def test_a_128_bit_encryption_is_not_taken():
    assert load("v4", make("v4", PLAIN, enc="A128GCM")) is None


def test_a_wrapped_key_is_not_taken():
    assert load("v4", make("v4", PLAIN, alg="A256KW")) is None
    assert load("v4", make("v4", PLAIN, alg="A256GCMKW")) is None


def test_one_versions_token_is_not_taken_under_the_others_name():
    v4, v5 = made("v4"), made("v5")
    assert reader("v5").load(request_with({AUTH_JS_5.cookie: v4})) is None
    assert reader("v4").load(request_with({NEXT_AUTH_4.cookie: v5})) is None


@EACH
def test_every_secret_of_the_list_opens(version):
    for secrets in (["new-secret", SECRET], [SECRET, "new-secret"], ["a", "b", "c", SECRET]):
        request = request_with({FLAVOURS[version].cookie: made(version)})
        assert user(reader(version, secrets).load(request)).id == "user-123"


def test_each_reader_prefers_the_secret_of_its_own_front_end():
    assert next_auth_readers(nextauth_secret=None, auth_secrets=()) == ()
    for nextauth, auth, known in (
        (SECRET, (), (True, True)),
        (None, ("other", SECRET), (True, True)),
        (SECRET, ("other",), (True, False)),
        ("other", ("another", SECRET), (False, True)),
    ):
        v4, v5 = next_auth_readers(nextauth_secret=nextauth, auth_secrets=auth)
        v4._clock = v5._clock = clock
        found = (
            v4.load(request_with({NEXT_AUTH_4.cookie: made("v4")})),
            v5.load(request_with({AUTH_JS_5.cookie: made("v5")})),
        )
        assert tuple(one is not None for one in found) == known


async def test_own_cookie_comes_first_then_next_auth_4_then_auth_js_5(aiohttp_client):
    own = CookieSessionStorage(["own-secret"], secure=False, clock=clock)
    sessions = Sessions(own, [reader("v4"), reader("v5")], clock=clock)

    async def who(request):
        return web.json_response((await sessions.user(request)).id)

    app = web.Application(middlewares=[sessions.middleware()])
    app.router.add_get("/", who)
    client = await aiohttp_client(app)
    cookies = {
        own.cookie_name: own.seal(User("own")),
        NEXT_AUTH_4.cookie: made("v4", id="four"),
        AUTH_JS_5.cookie: made("v5", id="five"),
    }
    seen = []
    while cookies:
        header = "; ".join(f"{name}={value}" for name, value in reversed(cookies.items()))
        for _ in range(2):
            answer = await client.get("/", headers={"Cookie": header})
            seen.append(await answer.json())
        del cookies[next(iter(cookies))]
    assert seen == ["own", "own", "four", "four", "five", "five"]


async def test_a_bearer_token_is_not_remembered_for_the_cookie_beside_it(aiohttp_client):
    own = CookieSessionStorage(["own-secret"], secure=False, clock=clock)
    sessions = Sessions(own, [reader("v4")], clock=clock)

    async def who(request):
        user = await sessions.user(request)
        return web.json_response(user and user.id)

    app = web.Application(middlewares=[sessions.middleware()])
    app.router.add_get("/", who)
    client = await aiohttp_client(app)
    cookie = {"Cookie": "theme=dark"}
    bearer = {"Authorization": f"Bearer {made('v4')}"}
    assert await (await client.get("/", headers={**cookie, **bearer})).json() == "user-123"
    assert await (await client.get("/", headers=cookie)).json() is None


async def test_a_remembered_session_still_expires(aiohttp_client):
    now = [float(NOW)]
    reading = NextAuthReader(NEXT_AUTH_4, [SECRET], clock=lambda: now[0])
    own = CookieSessionStorage(["own-secret"], secure=False)
    sessions = Sessions(own, [reading], clock=lambda: now[0])

    async def who(request):
        user = await sessions.user(request)
        return web.json_response(user and user.id)

    app = web.Application(middlewares=[sessions.middleware()])
    app.router.add_get("/", who)
    client = await aiohttp_client(app)
    headers = {"Cookie": f"{NEXT_AUTH_4.cookie}={made('v4')}"}

    async def ask():
        return await (await client.get("/", headers=headers)).json()

    assert (await ask(), await ask()) == ("user-123", "user-123")
    assert len(sessions._remembered) == 1
    now[0] += 60 + 14
    assert await ask() == "user-123"
    now[0] += 1
    assert await ask() is None
    assert not sessions._remembered


async def test_signing_out_removes_the_front_ends_cookies_too(aiohttp_client):
    own = CookieSessionStorage(["own-secret"], secure=True, clock=clock)
    sessions = Sessions(own, [reader("v4"), reader("v5")], clock=clock)

    async def sign_out(request):
        await sessions.sign_out(request)
        return web.Response()

    app = web.Application(middlewares=[sessions.middleware()])
    app.router.add_post("/", sign_out)
    client = await aiohttp_client(app)
    brought = [
        "next-auth.session-token",
        "__Secure-next-auth.session-token.0",
        "__Secure-next-auth.session-token.1",
        "__Secure-authjs.session-token",
    ]
    kept = ["theme", "next-auth.csrf-token", "x-authjs.session-token", "authjs.session-token.x"]
    header = "; ".join(f"{name}=value" for name in (*brought, *kept))
    answer = await client.post("/", headers={"Cookie": header})
    removed = {line.partition("=")[0]: line for line in answer.headers.getall("Set-Cookie")}
    assert removed.keys() == {*brought, "__Host-outbox_session"}
    for name, line in removed.items():
        assert "Max-Age=0" in line
        assert "Path=/" in line
        assert ("Secure" in line.split("; ")) is name.startswith("__")


@given(
    st.dictionaries(
        st.sampled_from(
            [
                name
                for f in FLAVOURS.values()
                for base in f.cookie_names
                for name in (base, f"{base}.0", f"{base}.1")
            ]
        ),
        st.text(alphabet=st.characters(codec="utf-8", exclude_characters=";\r\n\0")),
    ),
    st.text(),
)
@example({NEXT_AUTH_4.cookie: made("v4")[:-1] + "*"}, "")
@example({}, "Bearer %ff%zz")
@example({}, "Bearer " + "%41" * 20_000)
@settings(max_examples=200)
def test_no_malformed_cookie_raises_or_gives_a_user(cookies, authorization):
    request = request_with(cookies, Authorization=authorization)
    assert reader("v4").load(request) is None
    assert reader("v5").load(request) is None


TOKENS = {version: made(version) for version in FLAVOURS}


@given(st.sampled_from(["v4", "v5"]), st.integers(0), st.sampled_from("Ab1-_.*=% \u00e4"))
@settings(max_examples=300)
def test_no_changed_character_is_overlooked(version, at, character):
    token = TOKENS[version]
    at %= len(token)
    changed = token[:at] + character + token[at + 1 :]
    found = load(version, changed)
    # The last character of a base64 group may carry bits that mean nothing.
    assert found is None or changed == token or _same_bytes(changed, token)


def _same_bytes(one: str, other: str) -> bool:
    def parts(token: str) -> list[bytes]:
        return [base64.urlsafe_b64decode(part + "==") for part in token.split(".")]

    return parts(one) == parts(other)
