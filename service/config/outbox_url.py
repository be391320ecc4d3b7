"""The address of an outbox, OUTBOX_URL: which store it names, and how it may be shown."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit

from service.errors import OutboxNotFoundError

SQLITE_PREFIX = "sqlite:///"
_POSTGRESQL = ("postgresql://", "postgres://")
_HIDDEN = "********"


def sqlite_path(url: str) -> Path | None:
    """The file that `url` names, None for PostgreSQL.

    Raises OutboxNotFoundError for an address that is neither.
    """
    if url.startswith(SQLITE_PREFIX) and len(url) > len(SQLITE_PREFIX):
        return Path(url.removeprefix(SQLITE_PREFIX))
    if url.startswith(_POSTGRESQL):
        return None
    raise OutboxNotFoundError(
        "The outbox's address is sqlite:///path/to/file or postgresql://host/database "
        "(OUTBOX_URL or --url)."
    )


def without_password(url: str) -> str:
    """The address with its passwords hidden, for people and logs.

    >>> without_password("postgresql://ada:secret@db/outbox?sslmode=require&sslpassword=x")
    'postgresql://ada:********@db/outbox?sslmode=require&sslpassword=********'
    >>> without_password("sqlite:///data/outbox.db")
    'sqlite:///data/outbox.db'
    """
    if not url.startswith(_POSTGRESQL):
        return url
    parts = urlsplit(url)
    user_info, at, hosts = parts.netloc.rpartition("@")
    user, colon, _ = user_info.partition(":")
    netloc = f"{user}{colon}{_HIDDEN if colon else ''}{at}{hosts}"
    query = "&".join(
        f"{name}={_HIDDEN if 'password' in name.lower() else quote(value, safe='/:')}"
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    )
    return parts._replace(netloc=netloc, query=query).geturl()
