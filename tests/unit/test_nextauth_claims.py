"""What a front end's session says, and the bounds of its length, chunks, cookies and time."""

from __future__ import annotations

import json

import pytest
from aiohttp import web

from service.identity.cookies import cookie_header, parse_cookies
from service.identity.nextauth import NextAuthReader, next_auth_readers
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
@pytest.mark.parametrize(("given_", "expected"), [(True, True), ("true", False), (1, False)])
def test_an_email_is_verified_only_where_the_claim_is_true(version, given_, expected):
    assert load(version, made(version, email_verified=given_)).email_verified is expected


@EACH
def test_an_organization_comes_along(version):
    assert load(version, made(version, organizationId="org-7")).organization_id == "org-7"


@EACH
def test_half_a_surrogate_pair_in_a_name_is_replaced(version):
    assert load(version, made(version, name="Ada \ud83d")).name == "Ada ?"


@EACH
@pytest.mark.parametrize("seconds", [1, 0, -14])
def test_a_token_counts_for_fifteen_seconds_more(version, seconds):
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


def of_length(length: int, dots: int = 4) -> str:
    """A token of next-auth 4, with so many dots percent-encoded at most."""
    for pad in range(24_000, 24_600):
        token = made("v4", pad="x" * pad)
        for encode in range(dots + 1):
            encoded = token.replace(".", "%2E", encode)
            if len(encoded) == length:
                return encoded
    raise AssertionError(length)


def test_a_token_of_32_kib_is_read_and_a_longer_one_is_not():
    assert reader("v4").from_bearer(of_length(LONGEST)) is not None
    assert reader("v4").from_bearer(of_length(LONGEST + 1)) is None
    assert load("v4", of_length(LONGEST, dots=0)) is not None
    assert load("v4", of_length(LONGEST + 1, dots=0)) is None


@EACH
def test_of_two_session_cookies_the_one_for_https_counts(version):
    flavour = FLAVOURS[version]
    secured = made_for(version, f"__Secure-{flavour.cookie}", sub="secure")
    cookies = {flavour.cookie: made(version, sub="plain"), f"__Secure-{flavour.cookie}": secured}
    assert user(found_by(reader(version), request_with(cookies))).id == "secure"
    cookies[f"__Secure-{flavour.cookie}"] = secured[:-1]
    assert user(found_by(reader(version), request_with(cookies))).id == "plain"


def made_for(version: str, cookie: str, **claims: object) -> str:
    return make(version, json.dumps({**ADA, **claims}).encode(), cookie=cookie)


@EACH
def test_with_secure_only_the_cookie_for_https_counts(version):
    name = FLAVOURS[version].cookie
    strict = NextAuthReader(FLAVOURS[version], [SECRET], secure=True, clock=clock)
    assert found_by(strict, request_with({name: made(version)})) is None
    secured = f"__Secure-{name}"
    assert found_by(strict, request_with({secured: made_for(version, secured)})) is not None


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
    response = web.Response()
    reader(version).clear(parse_cookies(cookie_header(request)), response)
    assert sorted(response.cookies) == sorted(ours)
    for sent, cookie in response.cookies.items():
        assert (cookie["path"], cookie["httponly"], cookie["samesite"]) == ("/", True, "Lax")
        assert bool(cookie["secure"]) is sent.startswith("__Secure-")
        assert cookie["max-age"] in {0, "0"}


@EACH
@pytest.mark.parametrize(
    ("claims", "counts"),
    [
        ({"nbf": NOW + 15}, True),
        ({"exp": 2**53 - 1}, True),
        ({"exp": 2**53}, False),
    ],
    ids=str,
)
def test_the_first_and_the_last_second(version, claims, counts):
    assert (load(version, made(version, **claims)) is not None) is counts


@EACH
def test_a_token_with_an_encrypted_key_gives_nobody(version):
    header, _, *rest = made(version).split(".")
    assert load(version, ".".join([header, "AAAA", *rest])) is None
