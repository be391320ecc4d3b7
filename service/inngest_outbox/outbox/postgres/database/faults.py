"""The meaning of the driver's errors for the outbox.

An error is about the database (nothing can be stored until it recovers), about a value, or about
one statement. The driver's message may quote the address: for a person, the password is removed,
and the message about an address that can't be parsed is not shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import PoolTimeout

REPEAT = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)
"""Errors of a statement that changed nothing and may pass the next time."""

BAD_VALUE = (psycopg.DataError, UnicodeEncodeError)
"""Errors of a value that PostgreSQL can't store."""

_NO_ANSWER = "The outbox's database does not answer."
_SEALED = "The outbox is sealed: it was moved, or a move into it is not finished."
_SENTENCES: tuple[tuple[type[Exception], str], ...] = (
    (TimeoutError, "The outbox's database does not answer in time."),
    (PoolTimeout, _NO_ANSWER),
    (psycopg.errors.LockNotAvailable, "Another session holds a lock in the outbox's database."),
    (psycopg.errors.DiskFull, "The disk of the outbox's database is full."),
    (psycopg.errors.TooManyConnections, "The outbox's database has no connection left."),
    (psycopg.errors.InsufficientResources, "The outbox's database is out of resources."),
    (psycopg.errors.InsufficientPrivilege, "The outbox's database denies this user a right."),
    (psycopg.errors.InvalidAuthorizationSpecification, "The outbox's database refuses this user."),
    (psycopg.errors.InvalidPassword, "The outbox's database refuses this password."),
    (psycopg.errors.ReadOnlySqlTransaction, "The outbox's database takes no writes."),
    (psycopg.errors.UndefinedTable, "The outbox's tables are missing in its database."),
    (psycopg.errors.IoError, "The outbox's database can't use its disk."),
    (psycopg.errors.QueryCanceled, "The outbox's database does not answer in time."),
)

# The words of a refused connection; the driver gives no code for it.
_REFUSALS = (
    ("password authentication failed", "The outbox's database refuses this password."),
    ("no pg_hba.conf entry", "The outbox's database refuses this user from here."),
    ('role "', "The outbox's database refuses this user."),
    ("too many clients", "The outbox's database has no connection left."),
    ("remaining connection slots", "The outbox's database has no connection left."),
    ("too many connections", "The outbox's database has no connection left."),
    ("session is read-only", "The outbox's database takes no writes."),
    ("certificate", "The certificate of the outbox's database is not trusted."),
    ('database "', "The outbox's database does not exist."),
)
_UNREADABLE = (
    "The address of the outbox can't be read. It has the form "
    "postgresql://user:password@host:5432/database; a password's special characters are "
    "percent-encoded."
)
_SECRETS = ("password", "sslpassword")
_HIDDEN = "********"
_DEFAULT_PORT = "5432"


def is_of_the_database(error: BaseException) -> bool:
    """True when every other write would fail with this error too."""
    return isinstance(error, psycopg.InterfaceError) or _known(error) is not None or _closed(error)


def sentence(error: BaseException) -> str:
    """The cause as a sentence, without an address or a name."""
    return _known(error) or _refusal(reason(error)) or _NO_ANSWER


def reason(error: BaseException) -> str:
    """The cause for the log: the server's words and code, else the kind of the error."""
    words = said(error) or type(error).__name__
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        return f"{words} ({error.sqlstate})"
    return words


def said(error: BaseException) -> str:
    """The server's words, without the driver's prefix; empty for an error of another form.

    Of several hosts, those of the first that says more than that it can't be reached.
    """
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        return error.diag.message_primary
    causes = [words for line in str(error).splitlines() if (words := _said_in(line))]
    return next(filter(_refusal, causes), causes[0] if causes else "")


def _said_in(line: str) -> str:
    """The end of a line of a failed connection's message; empty for other lines."""
    for before in ("FATAL:", " failed: ", "connection is bad: "):
        _, found, said = line.rpartition(before)
        if found:
            return said.strip()
    return ""


def _refusal(words: str) -> str | None:
    return next((told for sign, told in _REFUSALS if sign in words), None)


def _known(error: BaseException) -> str | None:
    if isinstance(error, psycopg.errors.ObjectNotInPrerequisiteState):
        return _SEALED if error.diag.message_hint == "sealed" else None
    return next((told for kind, told in _SENTENCES if isinstance(error, kind)), None)


def _closed(error: BaseException) -> bool:
    """57P01 to 57P05: the server ends this connection, starts or stops."""
    return isinstance(error, psycopg.Error) and (error.sqlstate or "").startswith("57P")


def fault_at(url: str, error: BaseException) -> str:
    """One sentence about a fault of the database at `url`, without its password."""
    try:
        address = {name: str(value) for name, value in conninfo_to_dict(url).items()}
    except psycopg.Error:
        return _UNREADABLE
    if _holds_a_part_of_the_password(url, address):
        return _UNREADABLE
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return told_at(url, "it is a standby or read-only, and takes no writes.")
    comma = "," if address.get("dbname") else ""
    return f"{_place(address)}{comma} can't be used: {_cause(error, address)}."


def _holds_a_part_of_the_password(url: str, address: Mapping[str, str]) -> bool:
    """True for an address with a `/` in its password that is not percent-encoded.

    The driver takes what is before the `/` for the port, and the rest for the database's name.
    """
    _, is_url, places = url.partition("://")
    named = places.partition("/")[2].partition("?")[0] if is_url else ""
    ports = address.get("port", _DEFAULT_PORT).split(",")
    return "@" in named or not all(port.isdecimal() for port in ports if port)


def told_at(url: str, words: str) -> str:
    """A sentence about the database at `url`, whose address can be read, with its name."""
    address = {name: str(value) for name, value in conninfo_to_dict(url).items()}
    return f"{_place(address)}: {words}"


def _place(address: Mapping[str, str]) -> str:
    hosts = address.get("host", "").split(",")
    ports = address.get("port", _DEFAULT_PORT).split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    servers = " or ".join(
        (host if host.startswith("/") else f"{host}:{port or _DEFAULT_PORT}")
        if host
        else "the local socket"
        for host, port in zip(hosts, ports, strict=False)
    )
    database = address.get("dbname")
    return f"PostgreSQL at {servers}" + (f", database {database}" if database else "")


def _cause(error: BaseException, address: Mapping[str, str]) -> str:
    words = (said(error) or _first_line(error)).rstrip(".") or type(error).__name__
    for name in _SECRETS:
        if secret := address.get(name):
            words = words.replace(quote(secret, safe=""), _HIDDEN).replace(secret, _HIDDEN)
    return words


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].strip()
