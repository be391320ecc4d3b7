"""Session tokens of NextAuth: what is read, what their claims mean, and what is forged."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import example, given
from hypothesis import strategies as st
from joserfc.jwe import encrypt_compact
from joserfc.jwk import OctKey

from inngest_outbox.identity.cookies import cookie_header, parse_cookies
from inngest_outbox.identity.nextauth import (
    AUTH_JS_5,
    NEXT_AUTH_4,
    NextAuthReader,
    _derive_key,
    next_auth_readers,
)
from inngest_outbox.identity.user import User
from tests.support.session_tokens import (
    ADA,
    EACH,
    FLAVOURS,
    NOW,
    SECRET,
    clock,
    found_by,
    load,
    made,
    make,
    reader,
    request_with,
    user,
)

VECTORS = json.loads(
    (Path(__file__).parents[1] / "support" / "nextauth-vectors.json").read_text("utf-8")
)


def cases(kind: str):
    return [
        pytest.param(version, case, id=f"{version}-{index}")
        for version in FLAVOURS
        for index, case in enumerate(VECTORS[version][kind])
    ]


def ada(version: str) -> User:
    return User(FLAVOURS[version].issuer, "user-123", "ada@example.test", "Ada Lovelace")


@pytest.mark.parametrize(("version", "case"), cases("vectors"))
def test_a_real_token_gives_its_user(version, case):
    cookies = {case["cookie_name"]: case["token"]}
    found = found_by(reader(version, case["secret"]), request_with(cookies))
    assert user(found) == ada(version)
    assert found.good_until == case["exp"] + 15


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
    assert found_by(reader(version, case["secret"]), request_with(cookies)) is None


@EACH
def test_a_real_token_in_chunks_gives_its_user_and_chunks_with_a_gap_give_nobody(version):
    case = VECTORS[version]["chunked"]
    read = reader(version, case["secret"])
    assert user(found_by(read, request_with(case["cookies"]))) == ada(version)
    moved = {name.replace(".1", ".2"): value for name, value in case["cookies"].items()}
    assert found_by(read, request_with(moved)) is None


def strict(version: str) -> NextAuthReader:
    return NextAuthReader(FLAVOURS[version], [SECRET], secure=True, clock=clock)


@EACH
def test_a_bearer_token_is_taken_as_the_packages_take_it(version):
    for name in FLAVOURS[version].cookie_names:
        token = made_for(version, name)
        for sent in (token, token.replace(".", "%2E")):
            for one in (reader(version), strict(version)):
                assert user(one.from_bearer(sent)).id == "user-123"


@EACH
def test_every_secret_of_the_list_opens(version):
    for secrets in (["new-secret", SECRET], [SECRET, "new-secret"], ["a", "b", "c", SECRET]):
        request = request_with({FLAVOURS[version].cookie: made(version)})
        assert user(found_by(reader(version, secrets), request)).id == "user-123"


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
            found_by(v4, request_with({NEXT_AUTH_4.cookie: made("v4")})),
            found_by(v5, request_with({AUTH_JS_5.cookie: made("v5")})),
        )
        assert tuple(one is not None for one in found) == known


@EACH
@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"id": "u-9"}, "u-9"),
        ({"id": 42}, "42"),
        ({"id": ""}, "user-123"),
        ({"id": True}, "user-123"),
        ({"id": "\ud800"}, "user-123"),
    ],
)
def test_the_id_is_the_claim_id_where_it_is_usable_else_sub(version, claims, expected):
    assert load(version, made(version, **claims)).id == expected


@EACH
@pytest.mark.parametrize("sub", [..., None, "  ", 1.5])
def test_without_a_usable_id_there_is_nobody(version, sub):
    assert load(version, made(version, sub=sub)) is None


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
        {"exp": 2**53},
        {"exp": 10**400},
        {"nbf": NOW + 16},
        {"nbf": "soon"},
        {"nbf": True},
    ],
    ids=str,
)
def test_outside_its_time_a_token_gives_nobody(version, claims):
    assert load(version, made(version, **claims)) is None


LONGEST = 32_768


def chunked(version: str, count: int) -> web.Request:
    token, name = made(version), FLAVOURS[version].cookie
    parts = [*token[: count - 1], token[count - 1 :]]
    return request_with({f"{name}.{index}": part for index, part in enumerate(parts)})


@EACH
def test_sixteen_chunks_are_read_and_no_more(version):
    assert found_by(reader(version), chunked(version, 16)) is not None
    assert found_by(reader(version), chunked(version, 17)) is None


def of_length(length: int) -> str:
    """A token of next-auth 4."""
    about = 24_000 + (length - len(made("v4", pad="x" * 24_000))) * 3 // 4
    return next(
        token
        for pad in range(about - 12, about + 3)
        if len(token := made("v4", pad="x" * pad)) == length
    )


def test_a_token_of_32_kib_is_read_and_a_longer_one_is_not():
    assert load("v4", of_length(LONGEST)) is not None
    assert load("v4", of_length(LONGEST + 1)) is None
    assert reader("v4").from_bearer(of_length(LONGEST + 1)) is None


@EACH
def test_of_two_session_cookies_the_one_for_https_counts(version):
    flavour = FLAVOURS[version]
    secured = made_for(version, f"__Secure-{flavour.cookie}", sub="secure")
    cookies = {flavour.cookie: made(version, sub="plain"), f"__Secure-{flavour.cookie}": secured}
    assert user(found_by(reader(version), request_with(cookies))).id == "secure"
    cookies[f"__Secure-{flavour.cookie}"] = secured[:-1]
    assert user(found_by(reader(version), request_with(cookies))).id == "plain"
    cookies[f"{flavour.cookie}.0"] = made(version, sub="a chunk")
    assert user(found_by(reader(version), request_with(cookies))).id == "plain"


def made_for(version: str, cookie: str, **claims: object) -> str:
    return make(version, json.dumps({**ADA, **claims}).encode(), cookie=cookie)


@EACH
def test_with_secure_only_the_cookie_for_https_counts(version):
    name = FLAVOURS[version].cookie
    assert found_by(strict(version), request_with({name: made(version)})) is None
    secured = f"__Secure-{name}"
    request = request_with({secured: made_for(version, secured)})
    assert found_by(strict(version), request) is not None


def test_readers_are_made_with_what_the_service_is_told():
    for one in next_auth_readers(
        nextauth_secret=SECRET, auth_secrets=(SECRET,), secure=True, issuer="https://front.test"
    ):
        one._clock = clock
        version = "v4" if "next-auth" in one._flavour.cookie else "v5"
        name = one._flavour.cookie
        assert found_by(one, request_with({name: made(version)})) is None
        cookies = {f"__Secure-{name}": made_for(version, f"__Secure-{name}")}
        assert user(found_by(one, request_with(cookies))).issuer == "https://front.test"


@EACH
def test_a_sign_out_removes_the_session_cookies_and_no_other(version):
    name = FLAVOURS[version].cookie
    ours = [name, f"__Secure-{name}", f"{name}.0", f"__Secure-{name}.11"]
    others = ["theme", "7", f"{name}.a", f"x-{name}.0", f"{name}x"]
    request = request_with(dict.fromkeys([*ours, *others], "1"))
    for one in (reader(version), strict(version)):
        response = web.Response()
        one.clear(parse_cookies(cookie_header(request)), response)
        assert sorted(response.cookies) == sorted(ours)
    for sent, cookie in response.cookies.items():
        assert (cookie["path"], cookie["httponly"], cookie["samesite"]) == ("/", True, "Lax")
        assert bool(cookie["secure"]) is sent.startswith("__Secure-")
        assert cookie["max-age"] in {0, "0"}


@EACH
@pytest.mark.parametrize(
    "claims",
    [*({"exp": NOW + more} for more in (1, 0, -14)), {"nbf": NOW + 15}, {"exp": 2**53 - 1}],
    ids=str,
)
def test_a_token_counts_for_fifteen_seconds_before_and_after_its_time(version, claims):
    assert load(version, made(version, **claims)) is not None


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


@pytest.mark.parametrize("header", [{"enc": "A128GCM"}, {"alg": "A256KW"}, {"alg": "A256GCMKW"}])
def test_a_shorter_key_and_a_wrapped_one_are_not_taken(header):
    assert load("v4", make("v4", PLAIN, **header)) is None


def test_one_versions_token_is_not_taken_under_the_others_name():
    v4, v5 = made("v4"), made("v5")
    assert found_by(reader("v5"), request_with({AUTH_JS_5.cookie: v4})) is None
    assert found_by(reader("v4"), request_with({NEXT_AUTH_4.cookie: v5})) is None


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
def test_no_malformed_cookie_raises_or_gives_a_user(cookies, authorization):
    request = request_with(cookies, Authorization=authorization)
    assert found_by(reader("v4"), request) is None
    assert found_by(reader("v5"), request) is None


TOKENS = {version: made(version) for version in FLAVOURS}


@given(st.sampled_from(["v4", "v5"]), st.integers(0), st.sampled_from("Ab1-_.*=% \u00e4"))
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
