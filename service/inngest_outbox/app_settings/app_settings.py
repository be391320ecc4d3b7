"""Application settings: system defaults, the organization's and the user's, merged in that order.

Objects merge key by key; lists, scalars and null replace. A user's merged settings are cached in
encoded form until any process saves a scope. So `Scopes.scope_revision` must grow before
`save_scope` returns, or the next event would not show the change.
"""

from __future__ import annotations

import importlib.resources
import sys
from collections import OrderedDict
from pathlib import Path

import msgspec

from inngest_outbox.errors import ConfigurationError, InvalidJsonError
from inngest_outbox.identity.scopes import Scopes, Tree
from inngest_outbox.identity.user import User
from inngest_outbox.untyped_json import decode_untyped_object

MAX_SETTINGS_BYTES = 64 * 1024
_MAX_DEPTH = 64
_MAX_REMEMBERED = 10_000
_MAX_REMEMBERED_BYTES = 64 * 1024 * 1024

_encode = msgspec.json.Encoder().encode


def parse_settings(body: bytes) -> Tree:
    """The settings object in `body`.

    Raises InvalidJsonError unless it is a JSON object in UTF-8, nested at most 64 levels deep,
    whose numbers fit into a double.
    """
    try:
        settings: Tree = decode_untyped_object(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidJsonError from exc
    if _is_deeper(settings, _MAX_DEPTH):
        raise InvalidJsonError(f"The settings are nested more than {_MAX_DEPTH} levels deep.")
    if _has_huge_number(settings):
        raise InvalidJsonError("The settings have a number that most programs can't read.")
    return settings


def load_defaults(path: str | None) -> Tree:
    """The system defaults from the file at `path`, the packaged ones for None.

    Raises ConfigurationError for a file that can't be read or has no settings object.
    """
    try:
        if path is None:
            packaged = importlib.resources.files("inngest_outbox.app_settings") / "defaults.json"
            return parse_settings(packaged.read_bytes())
        return parse_settings(Path(path).read_bytes())
    except (OSError, InvalidJsonError) as exc:
        nothing = (
            f"it has no JSON object in UTF-8, nested at most {_MAX_DEPTH} levels deep, "
            "whose numbers fit into a double"
        )
        reason = exc.strerror if isinstance(exc, OSError) else nothing
        raise ConfigurationError([f"APP_SETTINGS_FILE: {reason}"]) from exc


def merge(below: Tree, above: Tree) -> Tree:
    """`below` overlaid by `above`, as a new object.

    >>> merge({"a": {"b": 1, "c": [1]}, "d": 2}, {"a": {"c": [2], "e": None}, "d": {"f": 3}})
    {'a': {'b': 1, 'c': [2], 'e': None}, 'd': {'f': 3}}
    """
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        both = isinstance(under, dict) and isinstance(value, dict)
        merged[key] = merge(under, value) if both else value  # type: ignore[arg-type]
    return merged


class AppSettings:
    """Reads effective settings and replaces stored ones.

    Caches the settings of at most 10,000 users, and at most 64 MiB.
    """

    def __init__(self, scopes: Scopes, defaults: Tree) -> None:
        self._scopes = scopes
        self._defaults = defaults
        self._revision = scopes.scope_revision
        self._remembered: OrderedDict[tuple[str | None, str], msgspec.Raw] = OrderedDict()
        self._remembered_bytes = 0

    async def effective(self, user: User) -> msgspec.Raw:
        """The user's merged settings, encoded. Raises OutboxUnavailableError."""
        revision = self._scopes.scope_revision
        if revision != self._revision:
            self._revision = revision
            self._remembered.clear()
            self._remembered_bytes = 0
        who = (user.organization_id, user.owner)
        known = self._remembered.get(who)
        return known if known is not None else await self._load(who, revision)

    async def replace_user(self, owner: str, settings: Tree) -> None:
        """Replace the user's own settings; durable on return. Raises OutboxUnavailableError."""
        await self._scopes.save_scope("user", owner, settings)

    async def replace_organization(self, organization_id: str, settings: Tree) -> None:
        """Replace an organization's settings; durable on return. Raises OutboxUnavailableError."""
        await self._scopes.save_scope("organization", organization_id, settings)

    async def _load(self, who: tuple[str | None, str], revision: int) -> msgspec.Raw:
        organization_id, owner = who
        merged = self._defaults
        if organization_id is not None:
            merged = merge(merged, await self._stored("organization", organization_id))
        merged = merge(merged, await self._stored("user", owner))
        encoded = msgspec.Raw(_encode(merged))
        if revision == self._revision:
            self._remember(who, encoded)
        return encoded

    async def _stored(self, scope: str, scope_id: str) -> Tree:
        return await self._scopes.load_scope(scope, scope_id) or {}

    def _remember(self, who: tuple[str | None, str], encoded: msgspec.Raw) -> None:
        self._forget(who)
        self._remembered[who] = encoded
        self._remembered_bytes += len(memoryview(encoded))
        while (
            len(self._remembered) > _MAX_REMEMBERED
            or self._remembered_bytes > _MAX_REMEMBERED_BYTES
        ):
            self._forget(next(iter(self._remembered)))

    def _forget(self, who: tuple[str | None, str]) -> None:
        encoded = self._remembered.pop(who, None)
        if encoded is not None:
            self._remembered_bytes -= len(memoryview(encoded))


def _has_huge_number(value: object) -> bool:
    """True for an integer beyond the range of a double; the decoder refuses such a float."""
    if isinstance(value, dict):
        return any(map(_has_huge_number, value.values()))
    if isinstance(value, list):
        return any(map(_has_huge_number, value))
    return isinstance(value, int) and abs(value) > sys.float_info.max


def _is_deeper(value: object, levels: int) -> bool:
    children: list[object] = []
    if isinstance(value, dict):
        children = list(value.values())
    elif isinstance(value, list):
        children = value
    else:
        return False
    return levels == 0 or any(_is_deeper(child, levels - 1) for child in children)
