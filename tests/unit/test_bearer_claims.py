"""Which bearer tokens of an issuer count, for whom, and for how long."""

from __future__ import annotations

import base64
import json
import warnings
from typing import Any, cast

import pytest
from aiohttp.test_utils import make_mocked_request
from joserfc import jws, jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, KeySet, OctKey, OKPKey, RSAKey

from inngest_outbox.errors import ProviderUnavailableError
from inngest_outbox.identity.bearer_tokens import BearerTokens
from inngest_outbox.identity.jwks import Jwks
from inngest_outbox.identity.user import User
from tests.support.clock import Clock

ISSUER = "https://issuer.example"
NOW = 1_800_000_000
KEY = ECKey.generate_key("P-256", {"kid": "ec"})
OTHER = ECKey.generate_key("P-256", {"kid": "ec"})
EDWARDS = OKPKey.generate_key("Ed25519", {"kid": "okp"})
CLAIMS = {"iss": ISSUER, "aud": "outbox", "sub": "u-1", "exp": NOW + 600}


class Keys:
    """The issuer's keys, and which ids were asked for."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []
        self.known = [KEY, EDWARDS]
        self.is_away = False

    async def keys(self, kid: str | None) -> KeySet:
        self.asked.append(kid)
        if self.is_away:
            raise ProviderUnavailableError
        return KeySet(self.known)


class Service:
    def __init__(self, audience: str | None = "outbox", **options: str) -> None:
        self.keys, self.clock = Keys(), Clock(NOW)
        self.tokens = BearerTokens(
            cast("Jwks", self.keys),
            issuer=ISSUER,
            audience=audience,
            user_issuer="elsewhere",
            clock=self.clock,
            **options,
        )

    async def find(self, token: str, scheme: str = "Bearer ") -> User | None:
        headers = {"Authorization": f"{scheme}{token}"}
        return await self.tokens.find(make_mocked_request("GET", "/", headers=headers))

    async def of(self, **changes: Any) -> User | None:
        return await self.find(made(**changes))


def made(key: Any = KEY, algorithm: str = "ES256", **changes: Any) -> str:
    claims = {name: one for name, one in {**CLAIMS, **changes}.items() if one is not ...}
    header = {"alg": algorithm, "kid": key.kid or "none"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return jwt.encode(header, claims, key, algorithms=[algorithm])


async def test_a_token_names_its_user_in_every_claim() -> None:
    service = Service()
    token = made(email="ada@example.com", name="Ada", email_verified=True)
    expected = User("elsewhere", "u-1", "ada@example.com", "Ada", None, email_verified=True)
    for scheme in ("Bearer ", "bearer ", "BEARER  "):
        assert await service.find(token, scheme) == expected
    assert service.keys.asked == ["ec"]


HMAC = OctKey.import_key(b"x" * 32, {"kid": "ec"})


async def test_what_does_not_follow_the_word_bearer_or_is_no_such_token_asks_for_no_keys() -> None:
    service = Service()
    for scheme in ("", "Basic ", "Bearer"):
        assert await service.find(made(), scheme) is None
    for text in ("", "a", "a.b", "a..b", "a.b.c.d", "\u00e9.b.c", "a.b.c d", "a+.b.c"):
        assert await service.find(text) is None
    assert await service.find(made(HMAC, "HS256")) is None
    assert await service.tokens.find(make_mocked_request("GET", "/")) is None
    assert service.keys.asked == []


@pytest.mark.parametrize("algorithm", ["EdDSA", "Ed25519"])
async def test_better_auth_signs_with_edwards_curves_and_nothing_warns_of_that(
    algorithm: str,
) -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        service = Service()
        assert await service.find(made(EDWARDS, algorithm)) == User("elsewhere", "u-1")
        assert shown == []
        warnings.warn("This key is short", SecurityWarning, stacklevel=1)
    assert [str(one.message) for one in shown] == ["This key is short"]


def forged() -> list[str]:
    good = made()
    head, claims, signature = good.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    odd = [
        base64.urlsafe_b64encode(one).rstrip(b"=").decode() for one in (b"[]", b"{", b'{"alg":1}')
    ]
    return [
        f"{head}.{claims}.{signature[:-4]}AAAA",
        f"{head}.{claims}.x",
        f"{none}.{claims}.{signature}",
        made(HMAC, "HS256"),
        made(OTHER),
        *(f"{one}.{claims}.{signature}" for one in odd),
    ]


async def test_a_token_that_the_issuer_did_not_sign_is_no_session() -> None:
    for token in forged():
        assert await Service().find(token) is None, token


@pytest.mark.parametrize("payload", [b"[]", b"x", b"\xff", b"[" * 3000])
async def test_signed_content_that_is_no_claims_is_no_session(payload: bytes) -> None:
    token = jws.serialize_compact({"alg": "ES256", "kid": "ec"}, payload, KEY, algorithms=["ES256"])
    assert await Service().find(token) is None


@pytest.mark.parametrize(("size", "is_looked_at"), [(16 * 1024, True), (16 * 1024 + 1, False)])
async def test_a_token_has_at_most_16_ki_characters(size: int, is_looked_at: bool) -> None:  # noqa: FBT001
    service, head = Service(), made().partition(".")[0]
    left = size - len(head) - 2
    short = 4 + left % 4  # so that the other part is whole in base64
    token = f"{head}.{'A' * (left - short)}.{'A' * short}"
    assert (len(token), await service.find(token)) == (size, None)
    assert service.keys.asked == (["ec"] if is_looked_at else [])


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://another.example"},
        {"iss": ...},
        {"aud": "another-outbox"},
        {"aud": []},
        {"aud": ["another"]},
        {"aud": ...},
        {"exp": ...},
        {"exp": "tomorrow"},
        {"exp": None},
        {"exp": 10**400},
        {"nbf": -(10**400)},
        {"nbf": "yesterday"},
        {"nbf": None},
        {"sub": ...},
        {"sub": ""},
    ],
)
async def test_a_token_with_other_claims_is_no_session(changes: dict[str, Any]) -> None:
    service = Service()
    assert await service.of(**changes) is None
    assert len(service.tokens._valid) == 0


async def test_a_token_that_names_no_key_is_tried_with_each_of_its_type() -> None:
    service = Service()
    others = [EDWARDS, RSAKey.generate_key(2048), ECKey.generate_key("P-384"), OTHER]
    service.keys.known = [*others, KEY]
    signed = [
        jws.serialize_compact({"alg": "ES256"}, json.dumps(CLAIMS), key, algorithms=["ES256"])
        for key in (KEY, ECKey.generate_key("P-256"))
    ]
    assert await service.find(signed[0]) == User("elsewhere", "u-1")
    assert await service.find(signed[1]) is None
    assert service.keys.asked == [None, None]


async def test_one_of_several_audiences_is_enough_and_none_may_be_wanted() -> None:
    assert await Service().of(aud=["another", "outbox"])
    for audience in ("another", ..., None, []):
        assert await Service(audience=None).of(aud=audience)


async def test_the_id_is_the_claim_that_is_configured() -> None:
    service = Service(id_claim="employee")
    assert await service.of(employee="e-7") == User("elsewhere", "e-7")
    assert await service.of() is None


@pytest.mark.parametrize(
    ("claims", "is_valid"),
    [
        ({"exp": NOW - 14}, True),
        ({"exp": NOW - 14.5}, True),
        ({"exp": NOW - 15}, False),
        ({"exp": NOW - 14, "nbf": NOW}, True),
        ({"nbf": NOW + 15}, True),
        ({"nbf": NOW + 15.5}, False),
        ({"nbf": 0}, True),
    ],
)
async def test_clocks_may_differ_by_15_seconds(claims: dict[str, Any], is_valid: bool) -> None:  # noqa: FBT001
    assert (await Service().of(**claims) is not None) is is_valid


async def test_a_valid_token_is_checked_once_a_minute() -> None:
    service, token = Service(), made()
    for later, checks in ((0, 1), (59.9, 1), (60, 2)):
        service.clock.now = NOW + later
        assert await service.find(token)
        assert len(service.keys.asked) == checks


async def test_a_token_that_was_checked_never_outlives_its_end() -> None:
    service, token = Service(), made(exp=NOW + 30)
    for later in (0, 44.9):
        service.clock.now = NOW + later
        assert await service.find(token)
    assert len(service.keys.asked) == 1
    service.clock.now = NOW + 45
    assert await service.find(token) is None


async def test_while_the_keys_are_away_nobody_is_judged() -> None:
    service = Service()
    service.keys.is_away = True
    with pytest.raises(ProviderUnavailableError):
        await service.of()
