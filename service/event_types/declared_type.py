"""From a declaration to the event type that the service takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import msgspec

from service.app_settings.app_settings import AppSettings
from service.encryption import Encryption
from service.event_types.data_mapping import DataMapping, Sources
from service.event_types.declaration import Declaration
from service.event_types.documents import DOCUMENT_REFUSALS, Documents
from service.event_types.event_type import EventType
from service.event_types.senders import Senders
from service.identity.user import User

_NO_SETTINGS = msgspec.Raw(b"{}")


def make_event_type(
    declared: Declaration,
    documents: Documents,
    app_settings: AppSettings,
    encryption: Encryption | None = None,
) -> EventType:
    """The event type of a declaration, with the sources of its data.

    Without `encryption` the data stays readable.
    """
    seals = encryption if declared.encrypt is not False else None
    mapping = DataMapping(declared.data)
    place = {"bucket": documents.bucket, "region": documents.region}

    async def data(body: Mapping[str, Any], user: User) -> Mapping[str, Any]:
        document: Mapping[str, Any] = {}
        settings = _NO_SETTINGS
        if declared.document:
            document = {**place, **await documents.describe(body, user.owner)}
        if mapping.needs_app_settings:
            settings = await app_settings.effective(user)
        built = mapping.build(Sources(body, user, settings, document))
        return seals.encrypt(built, declared.encrypted_fields) if seals else built

    kind = EventType(
        name=declared.name,
        path=declared.path,
        body=declared.body,
        data=data,
        summary=declared.summary or f"Post the event {declared.name}",
        senders=Senders(declared.who),
    )
    if not declared.document:
        return kind
    return dataclasses.replace(
        kind,
        require=documents.require,
        check_first=documents.check,
        refusals=DOCUMENT_REFUSALS,
    )
