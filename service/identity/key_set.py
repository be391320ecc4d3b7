"""Public signature keys as an issuer publishes them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import structlog
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key, KeySet

from service.errors import ProviderUnavailableError

_KEY_TYPES = ("RSA", "EC", "OKP")

_log = structlog.get_logger(__name__)


def import_keys(published: Iterable[dict[str, Any]]) -> KeySet:
    """The usable keys among `published`; one that makes no sense does not spoil the others.

    Raises ProviderUnavailableError when none is usable.
    """
    keys = [key for one in published if (key := _import_key(one))]
    if not keys:
        raise ProviderUnavailableError("The issuer publishes no usable keys.")
    return KeySet(keys)


def _import_key(published: dict[str, Any]) -> Key | None:
    """A public signature key, None for a key of another kind."""
    if published.get("kty") not in _KEY_TYPES or published.get("use", "sig") != "sig":
        return None
    try:
        return JWKRegistry.import_key(published)
    except (JoseError, ValueError, TypeError, KeyError) as exc:
        _log.warning("issuer_key_unusable", reason=type(exc).__name__)
        return None
