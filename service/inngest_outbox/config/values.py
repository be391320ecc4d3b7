"""The types of the settings' values: how each is written in an environment variable."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import BeforeValidator, SecretStr

_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_MOST_SECONDS = 36_500 * 86_400.0
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*")
_LEAST_SECRET_BYTES, _MOST_SECRET_BYTES = 24, 64
# A key is a segment of the path that clients post to, and they do not encode it.
_is_key = re.compile(r"[A-Za-z0-9._~!$&'()*+;=:@-]{1,255}").fullmatch
_is_s3_address = re.compile(
    r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/([A-Za-z0-9!_.*'()/-]{1,500}?))?/?"
).fullmatch
_is_name = re.compile(r"[A-Za-z0-9._-]{1,64}").fullmatch


def parse_duration(text: str) -> float:
    """Seconds of a duration such as `250ms`, `10 s`, `5m`, `7d`; a bare number is seconds.

    >>> parse_duration("7d"), parse_duration("10"), parse_duration("1.5 m")
    (604800.0, 10.0, 90.0)
    """
    found = _DURATION.fullmatch(text.lower())
    unit = (found and found.group(2)) or "s"
    if not found or unit not in _UNIT_SECONDS:
        raise ValueError("write a duration as a number with ms, s, m, h, d or w, such as 10s or 7d")
    seconds = float(found.group(1)) * _UNIT_SECONDS[unit]
    if seconds > _MOST_SECONDS:
        raise ValueError("a duration is at most 36500d")
    return seconds


def spelled_duration(seconds: float) -> str:
    """A duration as `parse_duration` reads it, in the largest unit that divides it.

    >>> [spelled_duration(seconds) for seconds in (604800.0, 7200.0, 300.0, 90.0, 0.25)]
    ['7d', '2h', '5m', '90s', '250ms']
    """
    for unit in ("d", "h", "m", "s", "ms"):
        count = seconds / _UNIT_SECONDS[unit]
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    return f"{seconds:g}s"


def plain(secret: SecretStr | None) -> str | None:
    """The text of a secret, None without one or for an empty one."""
    return secret.get_secret_value() if secret else None


def webhook_secret(text: str) -> bytes:
    """The key of a secret as Standard Webhooks writes it. Raises ValueError for another text.

    >>> len(webhook_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
    24
    """
    prefix, _, encoded = text.partition("_")
    try:
        key = base64.b64decode(encoded, validate=True)
    except ValueError:
        key = b""
    if prefix != "whsec" or not _LEAST_SECRET_BYTES <= len(key) <= _MOST_SECRET_BYTES:
        raise ValueError("write whsec_ and 24 to 64 bytes in base64")
    return key


def s3_place(address: str) -> tuple[str, str]:
    """The bucket and the prefix in an address. Raises ValueError for another text.

    >>> s3_place("s3://events/Outbox/one/")
    ('events', 'Outbox/one')
    """
    found = _is_s3_address(address)
    if not found:
        raise ValueError("write s3://bucket/prefix")
    return found[1], found[2] or ""


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _split_as_written(text: str) -> tuple[str, ...]:
    """Secrets by commas. A single one keeps its white space, as the front end reads it."""
    return _split(text) if "," in text else (text,)


def _split_keys(text: str) -> tuple[str, ...]:
    """Keys by commas. White space stays: one SDK trims it and another does not."""
    keys = tuple(text.split(","))
    if any(not key or key != key.strip() for key in keys):
        raise ValueError("write key or key,old without white space around a key")
    return keys


def lower(text: str) -> str:
    """A word of a fixed choice, in any case."""
    return text.lower()


Seconds = Annotated[float, BeforeValidator(parse_duration)]
Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
Secrets = Annotated[tuple[SecretStr, ...], BeforeValidator(_split)]
SecretsAsWritten = Annotated[tuple[SecretStr, ...], BeforeValidator(_split_as_written)]
EncryptionKeys = Annotated[tuple[SecretStr, ...], BeforeValidator(_split_keys)]
Secret = SecretStr | None


def parse_event_keys(pairs: Iterable[str]) -> dict[str, str]:
    """The names by key, from `name:key` pairs.

    Raises ValueError with a sentence that holds no key.

    >>> parse_event_keys(["cron:0123456789abcdef", "cron:fedcba9876543210"])
    {'0123456789abcdef': 'cron', 'fedcba9876543210': 'cron'}
    """
    names: dict[str, str] = {}
    for number, pair in enumerate(pairs, start=1):
        name, _, key = (part.strip() for part in pair.partition(":"))
        if not _is_name(name) or not _is_key(key):
            raise ValueError(
                f"write pair {number} as name:key; a name has letters, digits, . _ and -, "
                "a key no space, slash, comma, % or quote"
            )
        if names.setdefault(key, name) != name:
            raise ValueError(f"{names[key]} and {name} have the same key")
    return names


@dataclass(frozen=True, slots=True)
class InngestAddress:
    """Absolute URLs of the Event API and the REST API, the event key, a branch environment."""

    event_api_origin: str
    api_origin: str
    event_key: str = field(repr=False)
    environment: str | None
