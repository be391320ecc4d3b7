"""The variables that decide who may sign in."""

from __future__ import annotations

import pytest

from service.config.settings import Settings
from service.errors import ConfigurationError


@pytest.mark.parametrize(
    "issuer", ["https://idp.example.com", "https://idp.example.com/realm", "http://127.0.0.1:4000"]
)
def test_an_issuer_is_reached_by_https_or_on_this_machine(issuer):
    Settings.load({"OIDC_ISSUER": issuer, "OIDC_CLIENT_ID": "outbox"})


@pytest.mark.parametrize(
    "issuer", ["http://idp.example.com", "idp.example.com", "ftp://idp.example.com", "https://[x"]
)
def test_another_issuer_is_a_fault(issuer):
    with pytest.raises(ConfigurationError, match="OIDC_ISSUER"):
        Settings.load({"OIDC_ISSUER": issuer, "OIDC_CLIENT_ID": "outbox"})


@pytest.mark.parametrize("origin", ["*", "app.example.com", "https://a.example/", "https://[x"])
def test_an_allowed_origin_is_an_origin(origin):
    with pytest.raises(ConfigurationError, match="ALLOWED_ORIGINS"):
        Settings.load({"ALLOWED_ORIGINS": origin})


def test_production_tells_of_everything_that_signing_in_lacks():
    with pytest.raises(ConfigurationError) as refused:
        Settings.load({"APP_ENV": "production", "DEV_LOGIN": "1", "OIDC_CLIENT_ID": "outbox"})
    told = "\n".join(refused.value.faults)
    for variable in ("SESSION_SECRET", "DEV_LOGIN", "OIDC_ISSUER"):
        assert variable in told


@pytest.mark.parametrize("variable", ["JWT_ISSUER", "NEXTAUTH_URL"])
@pytest.mark.parametrize("address", ["http://elsewhere.example.com", "elsewhere", "https://[x"])
def test_who_knows_users_is_asked_by_https_or_on_this_machine(variable, address):
    with pytest.raises(ConfigurationError, match=variable):
        Settings.load({variable: address})
    Settings.load({variable: "http://127.0.0.1:3000"})


@pytest.mark.parametrize("variable", ["JWT_AUDIENCE", "JWT_JWKS_URL"])
def test_what_belongs_to_an_issuer_of_tokens_needs_it(variable):
    with pytest.raises(ConfigurationError, match="JWT_ISSUER"):
        Settings.load({variable: "https://keys.example.com"})
