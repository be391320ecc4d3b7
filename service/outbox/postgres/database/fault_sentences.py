"""A fault of PostgreSQL for a person at a command: which server, which database, and why.

The driver's message may quote the address. So the password is removed, and the message about an
address that can't be parsed is not shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from service.outbox.postgres.database.faults import said

_UNREADABLE = (
    "The address of the outbox can't be read. It has the form "
    "postgresql://user:password@host:5432/database; a password's special characters are "
    "percent-encoded."
)
_SECRETS = ("password", "sslpassword")
_HIDDEN = "********"
_DEFAULT_PORT = "5432"


def fault_at(url: str, error: BaseException) -> str:
    """One sentence about a fault of the database at `url`, without its password."""
    try:
        address = {name: str(value) for name, value in conninfo_to_dict(url).items()}
    except psycopg.Error:
        return _UNREADABLE
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return told_at(url, "it is a standby or read-only, and takes no writes.")
    comma = "," if address.get("dbname") else ""
    return f"{_place(address)}{comma} can't be used: {_cause(error, address)}."


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
