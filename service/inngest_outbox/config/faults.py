"""The faults of a configuration of which each variable is right by itself."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from yarl import URL

from inngest_outbox.config.outbox_url import url_in_schema
from inngest_outbox.config.values import parse_event_keys, plain, s3_place, webhook_secret

if TYPE_CHECKING:
    from inngest_outbox.config.settings import Settings

ALARMS_AS_EVENTS = "inngest"
_MIN_SECRET_CHARS = 16
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_INNGEST_URL = re.compile(
    r"(https?://)?([^\s/:@]+:\d+|\[[0-9a-f:.]+\](:\d+)?|[^\s/:@]+\.[^\s/:@]+)(/\S*)?", re.IGNORECASE
)
_is_numbers = re.compile(r"[\d.]+").fullmatch
_ALIKE = 0.75  # PROT is that like PORT
_OF_AN_SDK = "INNGEST_SIGNING_KEY_FALLBACK"  # it looks like the fallback of the event key
_FLAGS = ("0", "1", "false", "true")


def misspelt_variables(environ: Iterable[str], known: Collection[str]) -> Iterator[tuple[str, str]]:
    """Names of `environ` that are not read and look like a `known` one, each with that one.

    >>> list(misspelt_variables(["OUTBOX_RETENSION", "PROT", "HOME"], ["OUTBOX_RETENTION", "PORT"]))
    [('OUTBOX_RETENSION', 'OUTBOX_RETENTION'), ('PROT', 'PORT')]
    """
    for name in environ:
        if name not in known and name != _OF_AN_SDK:
            for meant in difflib.get_close_matches(name, known, 1, _ALIKE):
                yield name, meant


def cross_faults(settings: Settings) -> list[str]:
    """A sentence for each fault; it begins with the variable's name."""
    return [
        *_people_faults(settings),
        *_store_faults(settings),
        *_secret_faults(settings),
        *_encryption_faults(settings),
        *_journal_faults(settings),
        *_event_key_faults(settings),
        *_elsewhere_faults(settings),
        *_inngest_faults(settings),
        *_alarm_faults(settings),
        *_origin_faults(settings),
        *_proxy_faults(settings),
    ]


def _store_faults(settings: Settings) -> Iterator[str]:
    sqlite = settings.sqlite_path is not None
    if not sqlite and _split_url(settings.outbox_url).scheme not in ("postgresql", "postgres"):
        yield "OUTBOX_URL: write sqlite:///path/to/file or postgresql://host/database"
    try:
        url_in_schema(settings.outbox_url, settings.outbox_schema)
    except ValueError as error:
        yield f"OUTBOX_SCHEMA: {error}"
    if settings.sqlite_path in ("", ":memory:"):
        yield "OUTBOX_URL: name a file after sqlite:///"


def _people_faults(settings: Settings) -> Iterator[str]:
    if not _is_host(settings.host):
        yield "HOST: write an address of this machine, such as 127.0.0.1, or its name"
    if any("@" not in email.strip("@") for email in settings.operator_emails):
        yield "OPERATOR_EMAILS: write e-mail addresses, separated by commas"


def _secret_faults(settings: Settings) -> Iterator[str]:
    for index, secret in enumerate(settings.session_secret):
        if len(secret.get_secret_value()) < _MIN_SECRET_CHARS:
            yield (
                f"SESSION_SECRET: secret {index + 1} is shorter than {_MIN_SECRET_CHARS} characters"
            )
    oidc = (settings.oidc_issuer, settings.oidc_client_id)
    if any(oidc) and not all(oidc):
        yield "OIDC_ISSUER, OIDC_CLIENT_ID: set both or neither"
    if settings.production:
        if not settings.session_secret:
            yield "SESSION_SECRET: required in production"
        if settings.dev_login:
            yield "DEV_LOGIN: the development sign-in can't be used in production"


def _encryption_faults(settings: Settings) -> Iterator[str]:
    if settings.show_decrypted and not settings.encryption_keys:
        yield "OUTBOX_SHOW_DECRYPTED: it needs OUTBOX_ENCRYPTION_KEY"


def _journal_faults(settings: Settings) -> Iterator[str]:
    if settings.journal is None:
        return
    if settings.sqlite_path is None:
        yield (
            "OUTBOX_JOURNAL: the journal is that of an SQLite outbox; on PostgreSQL a synchronous "
            "standby does this, with synchronous_standby_names"
        )
    try:
        s3_place(settings.journal)
    except ValueError as error:
        yield f"OUTBOX_JOURNAL: {error}"


def _event_key_faults(settings: Settings) -> Iterator[str]:
    try:
        names = parse_event_keys(one.get_secret_value() for one in settings.event_keys)
    except ValueError as error:
        yield f"OUTBOX_EVENT_KEYS: {error}"
        return
    if settings.production:
        for name in sorted({names[key] for key in names if len(key) < _MIN_SECRET_CHARS}):
            yield (
                f"OUTBOX_EVENT_KEYS: a key of {name} is shorter than {_MIN_SECRET_CHARS} characters"
            )


def _elsewhere_faults(settings: Settings) -> Iterator[str]:
    for variable, url in (
        ("OIDC_ISSUER", settings.oidc_issuer),
        ("JWT_ISSUER", settings.jwt_issuer),
        ("JWT_JWKS_URL", settings.jwt_jwks_url),
        ("NEXTAUTH_URL", settings.nextauth_url),
    ):
        address = _split_url(url or "https://")
        is_safe = address.scheme == "https" or address.hostname in _LOOPBACK
        if not is_safe or len((url or "").split()) > 1:
            yield f"{variable}: write it as https://host or https://host/path"
    if (settings.jwt_audience or settings.jwt_jwks_url) and not settings.jwt_issuer:
        yield "JWT_AUDIENCE, JWT_JWKS_URL: these need JWT_ISSUER"


def _inngest_faults(settings: Settings) -> Iterator[str]:
    if not settings.inngest_event_key and not settings.inngest_dev_mode:
        yield "INNGEST_EVENT_KEY: required unless INNGEST_DEV is set"
    if settings.confirm == "on" and not (settings.inngest_signing_key or settings.inngest_dev_mode):
        yield "OUTBOX_CONFIRM: on needs INNGEST_SIGNING_KEY, to ask Inngest's REST API"
    flag = (settings.inngest_dev or "").lower()
    if flag and settings.inngest_dev_url is None and flag not in _FLAGS:
        yield "INNGEST_DEV: write 1, 0 or the dev server's address, such as http://127.0.0.1:8288"
    for variable, url in (
        ("INNGEST_DEV", settings.inngest_dev_url),
        ("INNGEST_BASE_URL", settings.inngest_base_url),
        ("INNGEST_API_BASE_URL", settings.inngest_api_base_url),
        ("INNGEST_EVENT_API_BASE_URL", settings.inngest_event_api_base_url),
    ):
        # The SDK passes over a URL that it can't take and sends to Inngest's cloud instead.
        if url and not _is_inngest_url(url):
            yield (
                f"{variable}: write http://host:port or https://host; "
                "a host without a dot needs its port"
            )


def _alarm_faults(settings: Settings) -> Iterator[str]:
    secret = plain(settings.alarm_secret)
    if secret:
        try:
            webhook_secret(secret)
        except ValueError as error:
            yield f"ALARM_SECRET: {error}"
    url = plain(settings.alarm_url)
    if url is None or url == ALARMS_AS_EVENTS:
        return
    address = _split_url(url)
    host = address.hostname or ""
    if address.scheme not in ("http", "https") or not (host and _is_host(host)):
        yield f"ALARM_URL: write https://host/path or {ALARMS_AS_EVENTS}"
    if not secret:
        yield "ALARM_SECRET: required with the address in ALARM_URL"


def _origin_faults(settings: Settings) -> Iterator[str]:
    if not all(map(_is_origin, settings.allowed_origins)):
        yield (
            "ALLOWED_ORIGINS: write each origin as browsers send it, such as https://a.example:8443"
        )


def _proxy_faults(settings: Settings) -> Iterator[str]:
    for proxy in settings.trusted_proxies:
        try:
            ipaddress.ip_network(proxy)
        except ValueError:
            yield "TRUSTED_PROXIES: write addresses or networks, such as 10.0.0.5 or 10.0.0.0/24"
            return


def _is_origin(text: str) -> bool:
    """True for an origin as browsers send it: in lower case, without its scheme's usual port."""
    try:
        origin = URL(text).origin()
    except ValueError:
        return False
    return origin.scheme in ("http", "https") and str(origin) == text


def _is_inngest_url(url: str) -> bool:
    parts = _split_url(url if "://" in url else f"//{url}")
    return bool(_INNGEST_URL.fullmatch(url) and parts.netloc) and _is_host(parts.hostname or "")


def _is_host(text: str) -> bool:
    """True for an address, and for what can be a machine's name."""
    try:
        ipaddress.ip_address(text) if _is_numbers(text) else text.encode("idna")
    except ValueError:
        return False
    return True


def _split_url(url: str) -> SplitResult:
    """The parts of a URL, all of them empty when it is none."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")
