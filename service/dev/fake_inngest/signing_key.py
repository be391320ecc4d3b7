"""Inngest's signing key: the forms in which a request may bring it."""

from __future__ import annotations

import hashlib
import hmac
import re

_PREFIX = re.compile(r"^signkey-\w+-")


class SigningKey:
    """A key that guards the REST API: hex, alone or as `signkey-<environment>-<hex>`.

    Raises ValueError for one that is not hex.

    >>> SigningKey("signkey-test-00ff").accepts("Bearer 00ff")
    True
    """

    def __init__(self, key: str) -> None:
        bare = _PREFIX.sub("", key)
        digest = hashlib.sha256(bytes.fromhex(bare)).hexdigest()
        self._accepted = (bare, digest)

    def accepts(self, authorization: str | None) -> bool:
        """Whether this Authorization header brings the key, as it is or hashed."""
        scheme, _, token = (authorization or "").partition(" ")
        bare = _PREFIX.sub("", token.strip()).encode()
        known = [hmac.compare_digest(bare, one.encode()) for one in self._accepted]
        return scheme.lower() == "bearer" and any(known)
