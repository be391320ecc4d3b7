"""The address of an outbox, OUTBOX_URL: which store it names, and how it may be shown."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

from inngest_outbox.errors import OutboxNotFoundError

_SQLITE = "sqlite:///"
_POSTGRESQL = ("postgresql://", "postgres://")
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
# Of several the last counts.
_OPTIONS = re.compile(r"^(.*[?&]options=)")
_HIDDEN = "********"
# What stands between the user's name and the last @, whatever it holds.
_USER_PASSWORD = re.compile(r"(?<=:)(?!//)\S*(?=@)")
_SECRET_PARAMETER = re.compile(
    r"([?&][^=&]*(?:password|token|secret|key)[^=&]*=)[^&\s]*", re.IGNORECASE
)


def sqlite_file(url: str) -> str | None:
    """The file that `url` names, as it is written there; None for another store.

    >>> sqlite_file("sqlite:///data/outbox.db"), sqlite_file("sqlite:////var/outbox.db")
    ('data/outbox.db', '/var/outbox.db')
    """
    return url.removeprefix(_SQLITE) if url.startswith(_SQLITE) else None


def sqlite_url(path: Path) -> str:
    """The address of the outbox in the file `path`."""
    return f"{_SQLITE}{path}"


def sqlite_path(url: str) -> Path | None:
    """The file that `url` names, None for PostgreSQL.

    Raises OutboxNotFoundError for an address that is neither.
    """
    if file := sqlite_file(url):
        return Path(file)
    if url.startswith(_POSTGRESQL):
        return None
    raise OutboxNotFoundError(
        "The outbox's address is sqlite:///path/to/file or postgresql://host/database "
        "(OUTBOX_URL or --url)."
    )


def url_in_schema(url: str, schema: str | None) -> str:
    """The address of an outbox whose tables are in `schema`; None is the schema `outbox`.

    Raises ValueError for a name that would have to be quoted.

    >>> url_in_schema("postgresql://db/app", "queue")
    'postgresql://db/app?options=-coutbox.schema%3Dqueue'
    >>> url_in_schema("sqlite:///data/outbox.db", "outbox")
    'sqlite:///data/outbox.db'
    """
    if schema is None or not url.startswith(_POSTGRESQL):
        return url
    if not _SCHEMA.fullmatch(schema):
        raise ValueError("a schema's name has lower-case letters, digits and underscores")
    option = quote(f"-coutbox.schema={schema}", safe="")
    named, count = _OPTIONS.subn(rf"\1{option}%20", url)
    return named if count else f"{url}{'&' if '?' in url else '?'}options={option}"


def redacted_url(url: str) -> str:
    """An address with its passwords and tokens hidden, for people and logs.

    >>> redacted_url("postgresql://ada:secret@db/outbox?sslmode=require&sslpassword=x")
    'postgresql://ada:********@db/outbox?sslmode=require&sslpassword=********'
    >>> redacted_url("sqlite:///data/outbox.db")
    'sqlite:///data/outbox.db'
    """
    return _SECRET_PARAMETER.sub(rf"\1{_HIDDEN}", _USER_PASSWORD.sub(_HIDDEN, url))


def file_fault(path: Path | str, error: OSError) -> str:
    """One sentence about a file that can't be used.

    >>> file_fault(Path("/data/outbox.db"), FileNotFoundError(2, "No such file or directory"))
    "/data/outbox.db can't be used: No such file or directory."
    """
    if isinstance(error, PermissionError):
        return (
            f"This user may not write {path}: run the command as the user who owns it, or mend the "
            "rights of the file and its folder."
        )
    return f"{path} can't be used: {error.strerror or type(error).__name__}."
