"""The configuration: defaults as documented, every fault at once, nothing silently passed over."""

from __future__ import annotations

import base64

import pytest
from pydantic import SecretStr

from service.config.faults import misspelt_variables
from service.config.outbox_url import redacted_url, url_in_schema
from service.config.settings import Settings
from service.config.values import parse_duration
from service.errors import ConfigurationError

DEFAULTS = {
    "app_env": "development",
    "host": "127.0.0.1",
    "port": 3000,
    "outbox_url": "sqlite:///data/outbox.db",
    "document_check": "off",
    "document_scope": "uploads",
    "user_ids_shared": False,
    "show_decrypted": False,
    "journal_away": "refuse",
    "journal_puts_per_second": 20.0,
    "rate_limit_per_user": None,
    "trusted_proxies": (),
    "max_bytes": None,
    "max_bytes_per_user": 4 * 1024**3,
    "max_body_bytes_in_flight": 128 * 1024**2,
    "dev_login": False,
    "accepts_loss": False,
    "web_concurrency": 1,
    "batch_events": 500,
    "batch_bytes": 1024 * 1024,
    "senders": 4,
    "send_timeout_seconds": 10,
    "drain_seconds": 10,
    "max_pending": 1_000_000,
    "max_pending_per_user": 100_000,
    "retention_seconds": 7 * 86400,
    "confirm": "auto",
    "unconfirmed_max": 10_000,
    "no_run_seconds": 300,
    "jwt_id_claim": "sub",
    "log_level": "info",
    "log_format": "auto",
}
FAULTY = {
    "APP_ENV": "staging",
    "PORT": "abc",
    "OUTBOX_URL": "mysql://host/x",
    "OUTBOX_BATCH_BYTES": "many",
    "OUTBOX_DRAIN_SECONDS": "soon",
    "OUTBOX_RETENTION": "7y",
    "OUTBOX_CONFIRM": "maybe",
    "ALARM_URL": "ftp://host",
    "ALARM_SECRET": "whsec_c2hvcnQ=",
    "LOG_LEVEL": "loud",
    "LOG_FORMAT": "xml",
    "DOCUMENT_CHECK": "maybe",
    "DOCUMENT_SCOPE": "mine",
    "USER_IDS_SHARED": "perhaps",
    "OUTBOX_MAX_BYTES_PER_USER": "lots",
    "DEV_LOGIN": "perhaps",
    "WEB_CONCURRENCY": "none",
    "OIDC_CLIENT_ID": "outbox",
    "INNGEST_DEV": "http://inngest",
}


def faults(**environ: str) -> str:
    with pytest.raises(ConfigurationError) as refused:
        Settings.load(environ)
    return "\n".join(refused.value.faults)


@pytest.mark.parametrize("environ", [{}, {"PORT": "", "OUTBOX_URL": "  ", "METRICS_TOKEN": ""}])
def test_what_is_not_set_or_blank_has_its_documented_default(environ):
    settings = Settings.load(environ)
    others = {name: () if isinstance(value, tuple) else None for name, value in settings}
    assert dict(settings) == {**others, **DEFAULTS}


def test_every_fault_is_told_at_once_under_its_variable():
    told = faults(**FAULTY)
    assert [name for name in FAULTY if name not in told] == []


def test_faults_of_variables_together_are_told_too():
    for schema in ("a-b", "q" * 64):
        assert "OUTBOX_SCHEMA" in faults(OUTBOX_URL="postgresql://h/x", OUTBOX_SCHEMA=schema)
    Settings.load({"OUTBOX_URL": "postgresql://h/x", "OUTBOX_SCHEMA": "q" * 63})
    assert "INNGEST_BASE_URL" in faults(INNGEST_BASE_URL="http://inngest.test nowhere")
    assert "ALARM_SECRET" in faults(ALARM_URL="https://alarms.test/x")


def test_no_fault_quotes_a_secret():
    assert "shortest" not in faults(SESSION_SECRET="shortest", PORT="x", METRICS_TOKEN="shortest")


def test_a_duration_is_read_with_its_unit():
    texts = ("250ms", "10", "10 s", "5m", "2h", "7D", "1w")
    assert [parse_duration(one) for one in texts] == [0.25, 10, 10, 300, 7200, 604_800, 604_800]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("APP_ENV", "development"),
        ("OUTBOX_JOURNAL_AWAY", "accept"),
        ("DOCUMENT_CHECK", "require"),
        ("DOCUMENT_SCOPE", "own"),
        ("OUTBOX_CONFIRM", "off"),
        ("LOG_LEVEL", "debug"),
        ("LOG_FORMAT", "json"),
    ],
)
def test_a_word_of_a_choice_is_read_in_any_case(variable: str, value: str) -> None:
    settings = Settings.load({variable: f" {value.upper()} "})
    assert getattr(settings, Settings.variables()[variable]) == value


def test_white_space_counts_around_the_front_ends_secrets_alone() -> None:
    """The front end reads those as they are written, often from the same file."""
    kinds = (str, str | None, SecretStr | None)
    fields = Settings.model_fields
    given = {
        name: one for name, one in Settings.variables().items() if fields[one].annotation in kinds
    }
    address = dict.fromkeys(given, "https://a.test")
    address |= {"OUTBOX_SCHEMA": "queue", "OUTBOX_JOURNAL": "s3://bucket", "INNGEST_DEV": "1"}
    address |= {"OUTBOX_URL": "sqlite:///a.db", "ALARM_SECRET": webhook_secret(24)}
    written = {name: f" {value}\n" for name, value in address.items()}
    settings = Settings.load({**written, "AUTH_SECRET": " one\n", "DEV_LOGIN": "true\n"})
    assert settings.dev_login
    assert [one.get_secret_value() for one in settings.auth_secrets] == [" one\n"]
    found = {name: getattr(settings, one) for name, one in given.items()}
    kept = {name: one for name, one in written.items() if "AUTH_SECRET" in name}
    assert {
        name: one.get_secret_value() if isinstance(one, SecretStr) else one
        for name, one in found.items()
    } == {**address, **kept}


def test_production_tells_of_everything_that_signing_in_lacks() -> None:
    told = faults(APP_ENV="production", DEV_LOGIN="1", OIDC_CLIENT_ID="outbox")
    for variable in ("SESSION_SECRET", "DEV_LOGIN", "OIDC_ISSUER"):
        assert variable in told


def test_a_value_that_can_not_be_read_is_told_in_plain_words() -> None:
    told = faults(PORT="x", DEV_LOGIN="perhaps", OUTBOX_RETENTION="soon")
    for words in ("PORT: write a whole", "DEV_LOGIN: write true or false", "write a duration as"):
        assert words in told
    assert faults(PORT="65536").startswith("PORT: input should be less than")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("OUTBOX_RETENSION", ["OUTBOX_RETENTION"]),
        ("PROT", ["PORT"]),
        ("INNGEST_EVENTKEY", ["INNGEST_EVENT_KEY"]),
        ("INNGEST_SIGNING_KEY_FALLBACK", []),
        ("INNGEST_SERVE_ORIGIN", []),
        ("AWS_SESSION_TOKEN", []),
        ("AWS_SECRET_ACCESS_KEY", []),
        ("HOME", []),
        ("PORT", []),
    ],
)
def test_a_misspelt_variable_is_named_with_the_right_one(name: str, meant: list[str]) -> None:
    found = misspelt_variables([name], Settings.variables())
    assert [right for _, right in found] == meant


def webhook_secret(size: int) -> str:
    return "whsec_" + base64.b64encode(bytes(size)).decode()


@pytest.mark.parametrize(
    ("variable", "taken", "refused"),
    [
        ("PORT", "65535", "65536"),
        ("PORT", "0", "-1"),
        *(
            ("OUTBOX_URL", "sqlite:///x", bad)
            for bad in ("sqlite:///", "sqlite:///:memory:", "sqlite://", "x.db")
        ),
        ("WEB_CONCURRENCY", "64", "65"),
        ("WEB_CONCURRENCY", "1", "0"),
        ("OUTBOX_BATCH_EVENTS", "5000", "5001"),
        ("OUTBOX_BATCH_EVENTS", "1", "0"),
        ("OUTBOX_BATCH_BYTES", "1KiB", "1023"),
        ("OUTBOX_SENDERS", "64", "65"),
        ("OUTBOX_SENDERS", "1", "0"),
        ("OUTBOX_SEND_TIMEOUT", "5m", "301"),
        ("OUTBOX_SEND_TIMEOUT", "1ms", "0"),
        ("OUTBOX_DRAIN_SECONDS", "10m", "601"),
        ("OUTBOX_MAX_PENDING", "1", "0"),
        ("OUTBOX_MAX_PENDING_PER_USER", "1", "0"),
        ("OUTBOX_MAX_BYTES", "1", "0"),
        ("OUTBOX_MAX_BYTES_PER_USER", "1", "0"),
        ("OUTBOX_MAX_BODY_BYTES_IN_FLIGHT", "1MiB", "1048575"),
        ("OUTBOX_RETENTION", "1s", "999ms"),
        ("OUTBOX_PAYLOAD_RETENTION", "24h", "86399"),
        ("OUTBOX_JOURNAL_PUTS_PER_SECOND", "1000", "1001"),
        ("OUTBOX_JOURNAL_PUTS_PER_SECOND", "0.1", "0"),
        ("OUTBOX_UNCONFIRMED_MAX", "1000000", "1000001"),
        ("OUTBOX_UNCONFIRMED_MAX", "100", "99"),
        ("OUTBOX_NO_RUN_AFTER", "1ms", "0"),
        ("RATE_LIMIT_PER_USER", "100000", "100001"),
        ("RATE_LIMIT_PER_USER", "0.1", "0"),
        ("SESSION_SECRET", "x" * 16, "x" * 15),
        ("ALARM_SECRET", webhook_secret(24), webhook_secret(23)),
        ("ALARM_SECRET", webhook_secret(64), webhook_secret(65)),
        ("ALARM_SECRET", webhook_secret(24), f"{webhook_secret(24)}!"),
        ("ALARM_SECRET", webhook_secret(24), f"secret_{'A' * 32}"),
        ("OUTBOX_ENCRYPTION_KEY", "new,old", "new, old"),
        ("OUTBOX_ENCRYPTION_KEY", "new", "new,"),
        ("OPERATOR_EMAILS", "a@b.example, ", "a@b.example, c"),
        ("OUTBOX_EVENT_KEYS", "cron:a@b", "cron:a/b"),
        ("OUTBOX_RETENTION", "36500d", "36501d"),
        ("INNGEST_DEV", "FALSE", "no"),
        ("INNGEST_DEV", "http://127.0.0.1:8288", "http://inngest"),
        ("INNGEST_DEV", "inngest.test", "inngest"),
        ("INNGEST_API_BASE_URL", "https://inngest.test", "inngest"),
        ("INNGEST_EVENT_API_BASE_URL", "inngest:8288", "inngest"),
        ("ALLOWED_ORIGINS", "https://a.test:8443", "https://a.test/x"),
        ("ALLOWED_ORIGINS", "http://a.test", "ftp://a.test"),
        *(("ALLOWED_ORIGINS", "http://a.test", bad) for bad in ("*", "a.test", "https://[x")),
        *(
            (name, "http://[::1]:9000", bad)
            for name in ("NEXTAUTH_URL", "JWT_ISSUER")
            for bad in ("http://a.test", "http://[::2]:9000", "a.test", "https://[x")
        ),
        ("NEXTAUTH_URL", "http://localhost:3000", "ftp://a.test"),
        ("JWT_ISSUER", "https://a.test", "ftp://a.test"),
        ("TRUSTED_PROXIES", "10.0.0.0/8", "10.0.0.1/8"),
        ("OUTBOX_JOURNAL", "s3://bucket/a", "s3://b/a"),
        ("OUTBOX_JOURNAL", f"s3://{'b' * 63}", f"s3://{'b' * 64}"),
        ("OUTBOX_JOURNAL", f"s3://bucket/{'a' * 500}", f"s3://bucket/{'a' * 501}"),
        ("OUTBOX_EVENT_KEYS", f"{'n' * 64}:k", f"{'n' * 65}:k"),
        ("OUTBOX_EVENT_KEYS", f"n:{'k' * 255}", f"n:{'k' * 256}"),
    ],
)
def test_a_value_at_its_bound_is_taken_and_one_beyond_is_not(
    variable: str, taken: str, refused: str
) -> None:
    key = {"INNGEST_EVENT_KEY": "key"}
    Settings.load({**key, variable: taken})
    assert faults(**key, **{variable: refused}).startswith(f"{variable}: ")


PRODUCTION = {"APP_ENV": "production", "SESSION_SECRET": "x" * 16, "INNGEST_EVENT_KEY": "key"}


@pytest.mark.parametrize(
    ("fault", "environ", "well"),
    [
        ("HOST: write", {"HOST": "300.1.1.1"}, {"HOST": "::1"}),
        *(
            ("OPERATOR_EMAILS: write", {"OPERATOR_EMAILS": bad}, {"OPERATOR_EMAILS": "a@b.example"})
            for bad in ("ops", "a@b.example,@x")
        ),
        (
            "OUTBOX_SHOW_DECRYPTED: it needs",
            {"OUTBOX_SHOW_DECRYPTED": "1"},
            {"OUTBOX_ENCRYPTION_KEY": "key"},
        ),
        (
            "OUTBOX_JOURNAL: the journal is that of an SQLite",
            {"OUTBOX_JOURNAL": "s3://bucket/a", "OUTBOX_URL": "postgresql://h/x"},
            {"OUTBOX_URL": "sqlite:///x"},
        ),
        (
            "OUTBOX_EVENT_KEYS: a key of cron is shorter than 16",
            {**PRODUCTION, "OUTBOX_EVENT_KEYS": f"cron:{'x' * 15}"},
            {"OUTBOX_EVENT_KEYS": f"cron:{'x' * 16}"},
        ),
        (
            "JWT_JWKS_URL: write it as https",
            {"JWT_ISSUER": "https://a.test", "JWT_JWKS_URL": "http://a.test/keys"},
            {"JWT_JWKS_URL": "https://a.test/keys"},
        ),
        (
            "OUTBOX_CONFIRM: on needs",
            {"OUTBOX_CONFIRM": "on", "INNGEST_EVENT_KEY": "key"},
            {"INNGEST_DEV": "1"},
        ),
        (
            "ALARM_URL: write https",
            {"ALARM_URL": "ftp://a.test", "ALARM_SECRET": webhook_secret(24)},
            {"ALARM_URL": "inngest"},
        ),
        (
            "ALARM_URL: write https",
            {"ALARM_URL": "https:///alarms", "ALARM_SECRET": webhook_secret(24)},
            {"ALARM_URL": "http://a.test/x"},
        ),
        *(
            (
                "OIDC_ISSUER: write it as",
                {"OIDC_ISSUER": bad, "OIDC_CLIENT_ID": "outbox"},
                {"OIDC_ISSUER": good},
            )
            for bad, good in (
                ("https://a.test https://b.test", "http://127.0.0.1:9000"),
                ("http://a.test", "https://a.test"),
                ("a.test", "https://a.test/realm"),
                ("https://[x", "https://a.test"),
            )
        ),
        *(
            (
                "JWT_AUDIENCE, JWT_JWKS_URL: these need",
                {name: "https://a.test/keys"},
                {"JWT_ISSUER": "https://a.test"},
            )
            for name in ("JWT_AUDIENCE", "JWT_JWKS_URL")
        ),
        (
            "OIDC_ISSUER, OIDC_CLIENT_ID: set both",
            {"OIDC_ISSUER": "https://a.test"},
            {"OIDC_CLIENT_ID": "outbox"},
        ),
        (
            "OUTBOX_URL: write sqlite",
            {"OUTBOX_URL": "mysql://h/x"},
            {"OUTBOX_URL": "postgres://h/x"},
        ),
        (
            "SESSION_SECRET: secret 2 is shorter than 16",
            {"SESSION_SECRET": f"{'x' * 16},short"},
            {"SESSION_SECRET": f" {'x' * 16} , {'y' * 16}"},
        ),
        (
            "INNGEST_EVENT_KEY: required unless INNGEST_DEV is set",
            {**PRODUCTION, "INNGEST_EVENT_KEY": ""},
            {"INNGEST_EVENT_KEY": "key"},
        ),
        (
            "INNGEST_EVENT_KEY: required",
            {**PRODUCTION, "INNGEST_EVENT_KEY": "", "INNGEST_DEV": "false"},
            {"INNGEST_DEV": "1"},
        ),
        (
            "INNGEST_EVENT_KEY: required",
            {"INNGEST_DEV": "False"},
            {"INNGEST_EVENT_KEY": "key"},
        ),
    ],
)
def test_a_fault_of_variables_together_goes_with_one_of_them(
    fault: str, environ: dict[str, str], well: dict[str, str]
) -> None:
    told = faults(**environ)
    assert told.startswith(fault)
    assert "\n" not in told
    settings = Settings.load({**environ, **well})
    assert settings.production is (environ.get("APP_ENV") == "production")


@pytest.mark.parametrize("rest", ["", "?sslmode=require"])
def test_a_schema_is_named_once_in_an_address(rest: str) -> None:
    named = url_in_schema(f"postgresql://db/app{rest}", "queue")
    option = f"{'&' if rest else '?'}options=-coutbox.schema%3Dqueue"
    assert named == url_in_schema(named, "queue") == f"postgresql://db/app{rest}{option}"


@pytest.mark.parametrize(
    "variable",
    ["INNGEST_EVENT_KEY", "INNGEST_DEV", "INNGEST_BASE_URL", "INNGEST_EVENT_API_BASE_URL"],
)
def test_an_inngest_is_named_by_its_address_or_its_key(variable: str) -> None:
    assert Settings.load({variable: "http://127.0.0.1:8288"}).names_inngest
    assert not Settings.load({}).names_inngest


@pytest.mark.parametrize(
    ("variable", "value", "attribute", "meant"),
    [
        ("OUTBOX_JOURNAL", "s3://bucket", "journal_place", ("bucket", "")),
        ("OUTBOX_JOURNAL", "s3://bucket/", "journal_place", ("bucket", "")),
        ("OUTBOX_BATCH_BYTES", "1048576", "batch_bytes", 1024 * 1024),
        ("OUTBOX_BATCH_BYTES", "1 MiB", "batch_bytes", 1024 * 1024),
        ("OUTBOX_BATCH_BYTES", "1MiB", "batch_bytes", 1024 * 1024),
        *(("HOST", one, "loopback", True) for one in ("127.0.0.1", "::1", "localhost")),
        *(("HOST", one, "loopback", False) for one in ("0.0.0.0", "a")),
    ],
)
def test_a_value_is_read_as_it_is_meant(
    variable: str, value: str, attribute: str, meant: object
) -> None:
    assert getattr(Settings.load({variable: value}), attribute) == meant


@pytest.mark.parametrize("name", ["password", "sslpassword", "Token", "client_secret", "api_key"])
def test_a_secret_parameter_of_an_address_is_not_shown(name: str) -> None:
    shown = redacted_url(f"postgresql://ada:word@db/x?sslmode=require&{name}=word&a=b")
    assert shown == f"postgresql://ada:********@db/x?sslmode=require&{name}=********&a=b"
