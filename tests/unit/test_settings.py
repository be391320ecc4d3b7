"""The configuration: defaults as documented, every fault at once, nothing silently passed over."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from pydantic import SecretStr

from inngest_outbox.config.faults import misspelt_variables
from inngest_outbox.config.outbox_url import file_fault, redacted_url, sqlite_path, url_in_schema
from inngest_outbox.config.settings import Settings
from inngest_outbox.config.values import parse_duration, spelled_duration
from inngest_outbox.errors import ConfigurationError, OutboxNotFoundError
from inngest_outbox.outbox.postgres.database.connection import connection_string, schema_of

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
DURATION = "write a duration as a number with ms, s, m, h, d or w, such as 10s or 7d"
PAIR = (
    "write pair 2 as name:key; a name has letters, digits, . _ and -, a key no space, slash, "
    "comma, % or quote"
)
JOURNAL = (
    "the journal is that of an SQLite outbox; on PostgreSQL a synchronous standby does this, with "
    "synchronous_standby_names"
)
HOME = "https://home.test"
HTTPS = "write it as https://host or https://host/path"
INNGEST = "write http://host:port or https://host; a host without a dot needs its port"
OIDC = "OIDC_ISSUER, OIDC_CLIENT_ID"
SHORT = "is shorter than 16 characters"
FAULTY = {
    "APP_ENV": ("staging", "input should be 'development' or 'production'"),
    "PORT": ("abc", "write a whole number"),
    "WEB_CONCURRENCY": ("65", "input should be less than or equal to 64"),
    "OUTBOX_BATCH_BYTES": ("many", "could not parse value and unit from byte string"),
    "OUTBOX_DRAIN_SECONDS": ("1h30m", DURATION),
    "OUTBOX_RETENTION": ("36501d", "a duration is at most 36500d"),
    "OUTBOX_ENCRYPTION_KEY": ("new,", "write key or key,old without white space around a key"),
    "OUTBOX_JOURNAL_AWAY": ("wait", "input should be 'refuse' or 'accept'"),
    "OUTBOX_JOURNAL_PUTS_PER_SECOND": ("few", "write a number"),
    "DOCUMENT_CHECK": ("maybe", "input should be 'off', 'enrich' or 'require'"),
    "DOCUMENT_SCOPE": ("mine", "input should be 'own', 'uploads' or 'any'"),
    "OUTBOX_CONFIRM": ("maybe", "input should be 'auto', 'on' or 'off'"),
    "DEV_LOGIN": ("perhaps", "write true or false"),
    "LOG_LEVEL": ("loud", "input should be 'debug', 'info', 'warning' or 'error'"),
    "LOG_FORMAT": ("xml", "input should be 'auto', 'console' or 'json'"),
    "HOST": ("300.1.1.1", "write an address of this machine, such as 127.0.0.1, or its name"),
    "OPERATOR_EMAILS": ("ops", "write e-mail addresses, separated by commas"),
    "OUTBOX_URL": ("mysql://h/x", "write sqlite:///path/to/file or postgresql://host/database"),
    "SESSION_SECRET": (
        f"short,{'x' * 16},shortest",
        f"secret 1 {SHORT}\nSESSION_SECRET: secret 3 {SHORT}",
    ),
    OIDC: ("outbox", "set both or neither"),
    "OUTBOX_SHOW_DECRYPTED": ("1", "it needs OUTBOX_ENCRYPTION_KEY"),
    "OUTBOX_EVENT_KEYS": ("cron:0123456789abcdef,shop", PAIR),
    "NEXTAUTH_URL": ("http://a.test", HTTPS),
    "JWT_AUDIENCE, JWT_JWKS_URL": ("https://a.test", "these need JWT_ISSUER"),
    "INNGEST_DEV": ("no", "write 1, 0 or the dev server's address, such as http://127.0.0.1:8288"),
    "INNGEST_BASE_URL": ("http://inngest.test nowhere", INNGEST),
    "INNGEST_API_BASE_URL": ("inngest", INNGEST),
    "ALARM_SECRET": ("whsec_c2hvcnQ=", "write whsec_ and 24 to 64 bytes in base64"),
    "ALARM_URL": ("https://[x", "write https://host/path or inngest"),
    "ALLOWED_ORIGINS": (
        "https://a.test,*,https://b.test",
        "write each origin as browsers send it, such as https://a.example:8443",
    ),
    "TRUSTED_PROXIES": (
        "::1,10.1/8,a",
        "write addresses or networks, such as 10.0.0.5 or 10.0.0.0/24",
    ),
}
FAULTY_IN_PRODUCTION = {
    "OUTBOX_SCHEMA": ("a-b", "a schema's name has lower-case letters, digits and underscores"),
    OIDC: ("outbox", "set both or neither"),
    "SESSION_SECRET": ("", "required in production"),
    "DEV_LOGIN": ("1", "the development sign-in can't be used in production"),
    "OUTBOX_JOURNAL": ("s3://b", f"{JOURNAL}\nOUTBOX_JOURNAL: write s3://bucket/prefix"),
    "OUTBOX_EVENT_KEYS": (
        f"c:short,a:{'x' * 16},b:{'y' * 15},c:tiny",
        f"a key of b {SHORT}\nOUTBOX_EVENT_KEYS: a key of c {SHORT}",
    ),
    "INNGEST_EVENT_KEY": ("", "required unless INNGEST_DEV is set"),
    "OUTBOX_CONFIRM": ("on", "on needs INNGEST_SIGNING_KEY, to ask Inngest's REST API"),
    "ALARM_URL": ("ftp://a.test", "write https://host/path or inngest"),
    "ALARM_SECRET": ("", "required with the address in ALARM_URL"),
}
PRODUCTION = {"APP_ENV": "production", "SESSION_SECRET": "x" * 16, "INNGEST_EVENT_KEY": "key"}
WORDS = "a secret of several words"
OTHERS = {"OUTBOX_URL": "postgresql://h/x", "AUTH_SECRET": "x"}


def faults(**environ: str) -> str:
    with pytest.raises(ConfigurationError) as refused:
        Settings.load(environ)
    return "\n".join(refused.value.faults)


@pytest.mark.parametrize(
    "environ", [{}, {"PORT": "", "OUTBOX_URL": "  ", "OUTBOX_ENCRYPTION_KEY": "  "}]
)
def test_what_is_not_set_or_blank_has_its_documented_default(environ):
    settings = Settings.load(environ)
    others = {name: () if isinstance(value, tuple) else None for name, value in settings}
    assert dict(settings) == {**others, **DEFAULTS}


@pytest.mark.parametrize(
    ("others", "faulty"), [({}, FAULTY), ({**PRODUCTION, **OTHERS}, FAULTY_IN_PRODUCTION)]
)
def test_every_fault_is_told_at_once_in_its_sentence(
    others: dict[str, str], faulty: dict[str, tuple[str, str]]
) -> None:
    given = {names.rpartition(", ")[2]: value for names, (value, _) in faulty.items()}
    told = [f"{names}: {sentence}" for names, (_, sentence) in faulty.items()]
    assert faults(**{**others, **given}) == "\n".join(told)


@pytest.mark.parametrize("schema", ["a-b", "1a", "A", "q" * 64])
def test_a_schema_that_would_have_to_be_quoted_is_refused(schema: str) -> None:
    url = {"OUTBOX_URL": "postgresql://h/x"}
    assert faults(**url, OUTBOX_SCHEMA=schema).startswith("OUTBOX_SCHEMA: a schema's name has")
    Settings.load({**url, "OUTBOX_SCHEMA": "q" * 63})
    Settings.load({"OUTBOX_SCHEMA": schema})  # SQLite has none


def test_a_variable_that_is_no_text_is_told_by_its_name() -> None:
    for one in Settings.variables():
        assert f"{one}: it is no text in UTF-8" in faults(**{one: "sqlite:///a\udcff"}).splitlines()


def test_a_duration_is_read_with_its_unit():
    texts = ("250ms", "10", "10 s", "5m", "2h", "7D", "1w")
    assert [parse_duration(one) for one in texts] == [0.25, 10, 10, 300, 7200, 604_800, 604_800]


def test_a_duration_is_spelled_in_the_largest_unit_that_divides_it() -> None:
    whole = ("1ms", "1s", "1m", "1h", "1d", "14d")
    others = ("0s", "0.0004s", "59500ms", "90s", "3599s", "36h", "604799s", "604800500ms")
    assert [spelled_duration(parse_duration(one)) for one in whole + others] == [*whole, *others]


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
    written = {name: f"\t{value} \n" for name, value in address.items()}
    settings = Settings.load({**written, "AUTH_SECRET": " one\n", "DEV_LOGIN": "true\n"})
    assert settings.dev_login
    assert [one.get_secret_value() for one in settings.auth_secrets] == [" one\n"]
    found = {name: getattr(settings, one) for name, one in given.items()}
    kept = {name: one for name, one in written.items() if "AUTH_SECRET" in name}
    assert {
        name: one.get_secret_value() if isinstance(one, SecretStr) else one
        for name, one in found.items()
    } == {**address, **kept}


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
        ("prot", []),
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
        *(("HOST", "1.a", bad) for bad in ("1", "a..b", f"{'a' * 64}.test")),
        *(("HOST", good, ".a") for good in ("::1", "fe80::1%lo", "é.test", f"{'a' * 63}.test")),
        *(
            ("OUTBOX_URL", "sqlite:///x", bad)
            for bad in ("sqlite:///", "sqlite:///:memory:", "sqlite://", "x.db", "http://[x")
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
        ("OUTBOX_DRAIN_SECONDS", "0", "-1"),
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
        ("SESSION_SECRET", f" {'x' * 16} , {'y' * 16}", "\u00e9" * 15),
        ("ALARM_URL", "inngest", "ftp://a.test"),
        ("ALARM_URL", "http://a.test/x", "https:///alarms"),
        ("ALARM_URL", "http://[::1]/x", "https://a..b/alarms"),
        ("ALARM_SECRET", webhook_secret(24), webhook_secret(23)),
        ("ALARM_SECRET", webhook_secret(64), webhook_secret(65)),
        ("ALARM_SECRET", webhook_secret(24), f"{webhook_secret(24)}!"),
        ("ALARM_SECRET", webhook_secret(24), f"secret_{'A' * 32}"),
        ("OUTBOX_ENCRYPTION_KEY", "new,old", "new, old"),
        *(("OUTBOX_ENCRYPTION_KEY", "new", bad) for bad in ("new,", "new ", " k", "k,,old")),
        *(("OPERATOR_EMAILS", "a@b.example, ", f"a@b.example,{bad}") for bad in ("c", "@x", "x@")),
        ("OUTBOX_EVENT_KEYS", "A.b_c-0:Az09._~!$&'()*+;=:@-", "cron:a/b"),
        ("OUTBOX_RETENTION", "36500d", "36501d"),
        *(("INNGEST_DEV", good, "2") for good in ("FALSE", "true", "0", "1")),
        ("INNGEST_DEV", "http://127.0.0.1:8288", "http://inngest"),
        ("INNGEST_DEV", "inngest.test", "inngest"),
        ("INNGEST_DEV", "[::1]:8288", "a]b:8288"),
        ("INNGEST_API_BASE_URL", "https://inngest.test", "inngest"),
        *(
            ("INNGEST_BASE_URL", "HTTP://[::1]:8288/a", f"http://{bad}")
            for bad in ("[::1]:a", "k@a.b", "[:::]:1", "a[b:1", "a..b", "1.2.3:1")
        ),
        ("INNGEST_EVENT_API_BASE_URL", "inngest:8288", "inngest"),
        ("ALLOWED_ORIGINS", "https://a.test:8443", "https://a.test/x"),
        ("ALLOWED_ORIGINS", "http://a.test", "ftp://a.test"),
        *(("ALLOWED_ORIGINS", "http://a.test", bad) for bad in ("*", "a.test", "https://[x")),
        *(
            ("ALLOWED_ORIGINS", "https://[::1]:8443", f"https://{never_sent}")
            for never_sent in ("A.test", "a.test:443", "u@a.test", "", "b\u00fccher.test")
        ),
        *(
            (name, good, bad)
            for name in ("OIDC_ISSUER", "JWT_ISSUER", "JWT_JWKS_URL", "NEXTAUTH_URL")
            for good, bad in (
                ("http://[::1]:9000", "http://[::2]:9000"),
                ("http://127.0.0.1:9000", "http://a.test"),
                ("http://localhost:9000", "ftp://a.test"),
                ("https://a.test/x", "a.test"),
                (HOME, "https://[x"),
                (HOME, f"{HOME} {HOME}"),
            )
        ),
        ("TRUSTED_PROXIES", "10.0.0.0/8", "10.0.0.1/8"),
        ("OUTBOX_JOURNAL", "s3://bucket/a", "s3://b/a"),
        ("OUTBOX_JOURNAL", "s3://a.b-c/Az09!_.*'()-/x", "s3://Bucket"),
        ("OUTBOX_JOURNAL", f"s3://{'b' * 63}", f"s3://{'b' * 64}"),
        ("OUTBOX_JOURNAL", f"s3://bucket/{'a' * 500}", f"s3://bucket/{'a' * 501}"),
        ("OUTBOX_EVENT_KEYS", f"{'n' * 64}:k", f"{'n' * 65}:k"),
        ("OUTBOX_EVENT_KEYS", f"n:{'k' * 255}", f"n:{'k' * 256}"),
    ],
)
def test_a_value_at_its_bound_is_taken_and_one_beyond_is_not(
    variable: str, taken: str, refused: str
) -> None:
    others = {"INNGEST_EVENT_KEY": "key", "ALARM_SECRET": webhook_secret(24)}
    others |= {"JWT_ISSUER": HOME, "OIDC_ISSUER": HOME, "OIDC_CLIENT_ID": "outbox"}
    Settings.load({**others, variable: taken})
    assert faults(**{**others, variable: refused}).startswith(f"{variable}: ")


@pytest.mark.parametrize(
    ("fault", "environ", "well"),
    [
        *(
            ("ALARM_SECRET: required with", {"ALARM_URL": "https://a.test"}, well)
            for well in ({"ALARM_SECRET": webhook_secret(24)}, {"ALARM_URL": "inngest"})
        ),
        *(
            (
                "JWT_AUDIENCE, JWT_JWKS_URL: these need",
                {**PRODUCTION, name: "http://localhost:9000"},
                {"JWT_ISSUER": "http://localhost:9000"},
            )
            for name in ("JWT_AUDIENCE", "JWT_JWKS_URL")
        ),
        (
            "OIDC_ISSUER, OIDC_CLIENT_ID: set both",
            {**PRODUCTION, "OIDC_ISSUER": "http://127.0.0.1:9000", "OIDC_CLIENT_SECRET": "key"},
            {"OIDC_CLIENT_ID": "outbox"},
        ),
        (
            "OUTBOX_URL: name a file after sqlite:///",
            {"OUTBOX_URL": "sqlite:///"},
            {"OUTBOX_URL": "postgres://h/x"},
        ),
        (
            "INNGEST_EVENT_KEY: required",
            {**PRODUCTION, "INNGEST_EVENT_KEY": "", "INNGEST_DEV": "false"},
            {"INNGEST_DEV": "1"},
        ),
        *(
            ("INNGEST_EVENT_KEY: required", {"INNGEST_DEV": off}, {"INNGEST_EVENT_KEY": "key"})
            for off in ("False", "0")
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


@pytest.mark.parametrize(
    "rest", ["", "?sslmode=require", "?options=a%3D1", "?options=-ca%3D1&options=-cb%3D2&port=1"]
)
def test_a_schema_in_an_address_leaves_the_rest_as_it_is(rest: str) -> None:
    for scheme in ("postgresql", "postgres"):
        plain = f"{scheme}://db/app{rest}"
        named = url_in_schema(plain, "queue")
        for again in (named, url_in_schema(named, "queue")):
            assert schema_of(again) == "queue"
            assert connection_string(again) == connection_string(plain)


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
        ("OUTBOX_JOURNAL", "", "journal_place", None),
        ("OUTBOX_JOURNAL", "s3://bucket", "journal_place", ("bucket", "")),
        ("OUTBOX_JOURNAL", "s3://bucket/", "journal_place", ("bucket", "")),
        ("OUTBOX_JOURNAL", "s3://bucket/a//", "journal_place", ("bucket", "a/")),
        ("OUTBOX_BATCH_BYTES", "1048576", "batch_bytes", 1024 * 1024),
        ("OUTBOX_BATCH_BYTES", "1 MiB", "batch_bytes", 1024 * 1024),
        ("OUTBOX_BATCH_BYTES", "1MiB", "batch_bytes", 1024 * 1024),
        *(("HOST", one, "loopback", True) for one in ("127.0.0.1", "::1", "localhost")),
        *(("HOST", one, "loopback", False) for one in ("0.0.0.0", "localhost.test")),
        ("SESSION_SECRET", f"{WORDS} , {WORDS}", "session_secret", (SecretStr(WORDS),) * 2),
    ],
)
def test_a_value_is_read_as_it_is_meant(
    variable: str, value: str, attribute: str, meant: object
) -> None:
    assert getattr(Settings.load({variable: value}), attribute) == meant


@pytest.mark.parametrize("name", ["password", "sslpassword", "Token", "client_secret", "api_key"])
def test_a_secret_parameter_of_an_address_is_not_shown(name: str) -> None:
    shown = redacted_url(f"postgresql://ada:w@r:/d@db/x?sslmode=require&{name}=word&a=b&token=t")
    assert redacted_url("postgresql://ada@db/x") == "postgresql://ada@db/x"
    others = f"sslmode=require&{name}=********&a=b&token=********"
    assert shown == f"postgresql://ada:********@db/x?{others}"


def test_a_fault_of_a_file_is_told_by_its_words_or_its_kind() -> None:
    assert file_fault("a", TimeoutError()) == "a can't be used: TimeoutError."
    assert file_fault("a", PermissionError(13, "Permission denied")) == (
        "This user may not write a: run the command as the user who owns it, or mend the rights of "
        "the file and its folder."
    )


def test_the_file_of_an_address_is_none_on_postgresql_alone() -> None:
    assert sqlite_path("sqlite:///a b.db") == Path("a b.db")
    assert sqlite_path("postgresql://h/x") is sqlite_path("postgres://h/x") is None
    for other in ("", "sqlite:///", "sqlite://a", "mysql://h/x", "a.db"):
        with pytest.raises(OutboxNotFoundError, match="sqlite:///path/to/file or postgresql://"):
            sqlite_path(other)
