"""Tokens that next-auth 4.24.15 and @auth/core 0.41.3 made, and the secrets that open them."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import pytest

from service.identity.nextauth import AUTH_JS_5, NEXT_AUTH_4, _derive_key, next_auth_readers
from service.identity.user import User
from tests.support.session_tokens import (
    EACH,
    FLAVOURS,
    SECRET,
    clock,
    found_by,
    made,
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


@pytest.mark.parametrize(("version", "case"), cases("vectors"))
def test_a_real_token_gives_its_user(version, case):
    found = found_by(
        reader(version, case["secret"]), request_with({case["cookie_name"]: case["token"]})
    )
    assert user(found) == User(
        FLAVOURS[version].issuer, "user-123", "ada@example.test", "Ada Lovelace"
    )
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
def test_a_real_token_in_chunks_gives_its_user(version):
    case = VECTORS[version]["chunked"]
    found = found_by(reader(version, case["secret"]), request_with(case["cookies"]))
    assert user(found) == User(
        FLAVOURS[version].issuer, "user-123", "ada@example.test", "Ada Lovelace"
    )


@EACH
def test_chunks_with_a_gap_give_nobody(version):
    case = VECTORS[version]["chunked"]
    moved = {name.replace(".1", ".2"): value for name, value in case["cookies"].items()}
    assert found_by(reader(version, case["secret"]), request_with(moved)) is None


@EACH
def test_a_bearer_token_is_taken_as_the_packages_take_it(version):
    token = quote(made(version))
    headers = {"Authorization": f"Bearer {token}"}
    assert user(found_by(reader(version), request_with({}, **headers))).id == "user-123"
    assert found_by(reader(version), request_with({}, Authorization=f"Basic {token}")) is None


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
