"""The configuration: defaults as documented, every fault at once, nothing silently passed over."""

from __future__ import annotations

import pytest

from service.config.faults import misspelt_variables
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
    "OUTBOX_BATCH_EVENTS": "0",
    "OUTBOX_BATCH_BYTES": "many",
    "OUTBOX_SENDERS": "0",
    "OUTBOX_SEND_TIMEOUT": "-1",
    "OUTBOX_DRAIN_SECONDS": "soon",
    "OUTBOX_MAX_PENDING": "-1",
    "OUTBOX_MAX_PENDING_PER_USER": "0",
    "OUTBOX_RETENTION": "7y",
    "OUTBOX_CONFIRM": "maybe",
    "OUTBOX_UNCONFIRMED_MAX": "1",
    "ALARM_URL": "ftp://host",
    "ALARM_SECRET": "whsec_c2hvcnQ=",
    "LOG_LEVEL": "loud",
    "LOG_FORMAT": "xml",
    "DOCUMENT_CHECK": "maybe",
    "DOCUMENT_SCOPE": "mine",
    "USER_IDS_SHARED": "perhaps",
    "RATE_LIMIT_PER_USER": "0",
    "TRUSTED_PROXIES": "10.0.0.0/33",
    "OUTBOX_MAX_BYTES": "0",
    "OUTBOX_MAX_BYTES_PER_USER": "lots",
    "DEV_LOGIN": "perhaps",
    "WEB_CONCURRENCY": "none",
    "SESSION_SECRET": "short",
    "OIDC_CLIENT_ID": "outbox",
    "INNGEST_DEV": "http://inngest",
    "ALLOWED_ORIGINS": "app.example.com",
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
    assert "OUTBOX_SCHEMA" in faults(OUTBOX_URL="postgresql://h/x", OUTBOX_SCHEMA="a-b")
    assert "INNGEST_BASE_URL" in faults(INNGEST_BASE_URL="http://inngest.test nowhere")
    assert "ALARM_SECRET" in faults(ALARM_URL="https://alarms.test/x")


def test_no_fault_quotes_a_secret():
    assert "shortest" not in faults(SESSION_SECRET="shortest", PORT="x", METRICS_TOKEN="shortest")


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("10", 10), ("10 s", 10), ("5m", 300), ("7D", 604_800)]
)
def test_a_duration_is_read_with_its_unit(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["1048576", "1 MiB", "1MiB"])
def test_a_size_is_read_with_its_unit(text):
    assert Settings.load({"OUTBOX_BATCH_BYTES": text}).batch_bytes == 1024 * 1024


@pytest.mark.parametrize("address", ["sqlite:///", "sqlite:///:memory:", "sqlite://", "x.db"])
def test_an_outbox_that_is_no_file_and_no_server_is_a_fault(address):
    assert "OUTBOX_URL" in faults(OUTBOX_URL=address)


def test_an_sqlite_outbox_may_have_several_front_processes():
    assert Settings.load({"WEB_CONCURRENCY": "2"}).web_concurrency == 2


def test_production_refuses_to_start_without_an_event_key():
    secret = {"APP_ENV": "production", "SESSION_SECRET": "long enough for this"}
    assert faults(**secret) == "INNGEST_EVENT_KEY: required unless INNGEST_DEV is set"
    assert Settings.load({**secret, "INNGEST_EVENT_KEY": "key"}).production


def test_a_number_that_can_not_be_read_is_told_in_plain_words() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.load({"PORT": "x", "DEV_LOGIN": "perhaps"})
    assert "PORT: write a whole number" in str(caught.value)
    assert "DEV_LOGIN: write true or false" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("HOST", "300.1.1.1"), ("OPERATOR_EMAILS", "ops"), ("OPERATOR_EMAILS", "a@b.example,@x")],
)
def test_an_address_that_is_none_is_refused(name: str, value: str) -> None:
    assert faults(**{name: value}).startswith(f"{name}: write")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("OUTBOX_RETENSION", ["OUTBOX_RETENTION"]),
        ("PROT", ["PORT"]),
        ("INNGEST_EVENTKEY", ["INNGEST_EVENT_KEY"]),
        ("INNGEST_SIGNING_KEY_FALLBACK", []),
        ("HOME", []),
        ("PORT", []),
    ],
)
def test_a_misspelt_variable_is_named_with_the_right_one(name: str, meant: list[str]) -> None:
    found = misspelt_variables([name], Settings.variables())
    assert [right for _, right in found] == meant
