"""The encrypted field of an event's data, in the form that Inngest's encryption middleware reads.

Only `data.encrypted` is encrypted. Its plain value is a JSON object of the fields that moved there.
Source: the middleware of the JavaScript SDK (`@inngest/middleware-encryption`) and of the Python
SDK (`inngest-encryption`), strategy `inngest/libsodium`: XSalsa20-Poly1305 under the BLAKE2b-256
of the key string, as padded Base64 of a random nonce and the box.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeGuard

import msgspec

from inngest_outbox.untyped_json import decode_untyped

FIELD = "encrypted"
MARK = "__ENCRYPTED__"
_STRATEGY = "__STRATEGY__"
_LIBSODIUM = "inngest/libsodium"
_KEY_BYTES, _NONCE_BYTES = 32, 24
_DIGEST_PURPOSE = b"idempotency digest"

_encode = msgspec.json.Encoder().encode


class Encryption:
    """Encrypts under the first of `keys`, and decrypts under any of them."""

    def __init__(self, keys: Sequence[str]) -> None:
        # Loaded only where there is a key: it takes 20 ms of a start.
        from nacl.bindings import crypto_secretbox_easy
        from nacl.exceptions import CryptoError
        from nacl.secret import SecretBox

        derived = [hashlib.blake2b(key.encode(), digest_size=_KEY_BYTES).digest() for key in keys]
        self._key, self._box = derived[0], crypto_secretbox_easy
        self._boxes = [SecretBox(key) for key in derived]
        self._refusals = (CryptoError, ValueError, RecursionError)
        self._digest_keys = [hmac.digest(key, _DIGEST_PURPOSE, "sha256") for key in derived]

    @property
    def keys(self) -> int:
        """The number of keys."""
        return len(self._boxes)

    def encrypt(self, data: Mapping[str, Any], fields: Collection[str] | None) -> Mapping[str, Any]:
        """The data with `fields` under `encrypted`; None moves all of them.

        A field of that name moves with them. Data that the sender's SDK has encrypted stays as it
        is.
        """
        if FIELD in data and is_encrypted(data[FIELD]):
            return data
        if fields is None:
            return {FIELD: self._sealed(_encode(data))} if data else data
        hidden = {name: data[name] for name in data if name in (*fields, FIELD)}
        shown = {name: data[name] for name in data if name not in hidden}
        return {**shown, FIELD: self._sealed(_encode(hidden))} if hidden else data

    def decrypted(self, value: object) -> object:
        """The value that was encrypted; anything else, and what no key opens, as it is."""
        return self._opened(value)[1]

    def revealed(self, payload: bytes) -> tuple[bytes, int | None]:
        """An event's JSON with its encrypted field in plain, and the place of its key.

        The bytes as they are, and None, where no key does.
        """
        try:
            event = decode_untyped(payload)
            data = event["data"]
            place, plain = self._opened(data[FIELD])
        except (ValueError, LookupError, TypeError, RecursionError):
            return payload, None
        if place is None:
            return payload, None
        return _encode({**event, "data": {**data, FIELD: plain}}), place

    def _opened(self, value: object) -> tuple[int | None, object]:
        """The place of the key that opens the value, and what it opens."""
        if not is_encrypted(value):
            return None, value
        try:
            sealed = base64.b64decode(value["data"], validate=True)
        except (ValueError, TypeError, KeyError):
            return None, value
        for place, box in enumerate(self._boxes):
            try:
                return place, decode_untyped(box.decrypt(sealed))
            except self._refusals:
                continue
        return None, value

    def digests(self, message: bytes) -> tuple[bytes, ...]:
        """A keyed digest (32 bytes) of `message` under each key, the first key's first."""
        return tuple(hmac.digest(key, message, "sha256") for key in self._digest_keys)

    def _sealed(self, plain: bytes) -> dict[str, object]:
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._box(plain, nonce, self._key)
        text = binascii.b2a_base64(sealed, newline=False).decode()
        return {MARK: True, _STRATEGY: _LIBSODIUM, "data": text}


def is_encrypted(value: object) -> TypeGuard[Mapping[str, Any]]:
    """True for a value that the middleware of an SDK, or this service, has encrypted."""
    return isinstance(value, Mapping) and value.get(MARK) is True
