"""Encrypts the data of events that a machine sends by name, where their type asks for it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec

from inngest_outbox.encryption import FIELD, MARK, Encryption
from inngest_outbox.event_types.declaration import Declaration
from inngest_outbox.outbox.event import MAX_EVENT_BYTES, Event
from inngest_outbox.web.intake.lenient_json import BadEventError

_fields_of = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_NULL = b"null"


class _Encrypted(msgspec.Struct):
    """The data that an SDK has encrypted. Its other fields are not built."""

    mark: bool = msgspec.field(name=MARK, default=False)


_decode_encrypted = msgspec.json.Decoder(_Encrypted).decode


class SealedEvents:
    """The types of `types` that declare `encrypt`, under the keys of `encryption`."""

    def __init__(self, encryption: Encryption, types: Iterable[Declaration]) -> None:
        self._encryption = encryption
        self._fields: Mapping[str, Collection[str] | None] = {
            one.name: one.encrypted_fields for one in types if one.encrypt
        }

    def seal(self, event: Event) -> Event:
        """The event as it is stored and sent.

        Raises BadEventError for one that is too large once it is encrypted.
        """
        if event.name not in self._fields:
            return event
        wire: dict[str, Any] = dict(_fields_of(event.payload))
        if bytes(wire.get("data", _NULL)) == _NULL:
            return event
        data: dict[str, Any] = dict(_fields_of(wire["data"]))
        if _is_encrypted(data.get(FIELD)):
            return event  # by the sender's SDK
        wire["data"] = self._encryption.encrypt(data, self._fields[event.name])
        payload = _encode(wire)
        if len(payload) > MAX_EVENT_BYTES:
            raise BadEventError(f"An event is larger than {MAX_EVENT_BYTES} bytes encrypted")
        return msgspec.structs.replace(event, payload=payload)


def _is_encrypted(value: msgspec.Raw | None) -> bool:
    try:
        return value is not None and _decode_encrypted(value).mark
    except msgspec.ValidationError:
        return False
