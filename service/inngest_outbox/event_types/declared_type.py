"""From a declaration to the event type that the service takes, and to the data of each event."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from inngest_outbox.app_settings.app_settings import AppSettings
from inngest_outbox.documents.document_name import DOCUMENT_REFUSALS, Documents
from inngest_outbox.encryption import Encryption
from inngest_outbox.event_types.body_schema import without_send_at
from inngest_outbox.event_types.declaration import Declaration
from inngest_outbox.event_types.event_type import EventType, Senders
from inngest_outbox.event_types.template import USER_FIELDS, is_source, sources_of, split_source
from inngest_outbox.identity.user import User
from inngest_outbox.untyped_json import decode_untyped

_NO_SETTINGS = msgspec.Raw(b"{}")
Object = Mapping[str, Any]


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
    encrypted_fields = declared.encrypted_fields
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
        return seals.encrypt(built, encrypted_fields) if seals else built

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


class Sources(msgspec.Struct, frozen=True, gc=False):
    """The sources of one event's data.

    `app_settings` and `document` are empty where the mapping does not use them.
    """

    body: Object
    user: User
    app_settings: msgspec.Raw = msgspec.Raw(b"{}")
    document: Object = {}


_Value = Callable[[Sources], Any]


class DataMapping:
    """Makes data by a checked `template`.

    A key whose source has no value is left out. Without a template, the data is the body without
    its `sendAt`. `build` gives the data of one event.
    """

    def __init__(self, template: Object | None) -> None:
        roots = {split_source(source)[0] for source, _ in sources_of(template)}
        self.needs_app_settings = "appSettings" in roots
        self.build: Callable[[Sources], Object] = (
            _whole_body if template is None else _object(template)
        )


def _object(template: Object) -> _Value:
    parts = [(key, _value(value)) for key, value in template.items()]

    def build(sources: Sources) -> dict[str, Any]:
        built = {}
        for key, value_in in parts:
            value = value_in(sources)
            if value is not UNSET:
                built[key] = value
        return built

    return build


def _value(template: Any) -> _Value:
    if isinstance(template, Mapping):
        return _object(template)
    if is_source(template):
        root, keys = split_source(template)
        return _ROOTS[root](keys)
    constant = _constant(template)
    return lambda _: constant


def _constant(value: Any) -> Any:
    if isinstance(value, str):
        return value[1:] if value.startswith("$$") else value
    if isinstance(value, list):
        return [_constant(one) for one in value]
    if isinstance(value, dict):
        return {key: _constant(one) for key, one in value.items()}
    return value


def _body(keys: Sequence[str]) -> _Value:
    return (lambda sources: _at(sources.body, keys)) if keys else _whole_body


def _user(keys: Sequence[str]) -> _Value:
    return lambda sources: _at(_described(sources.user), keys)


def _app_settings(keys: Sequence[str]) -> _Value:
    if not keys:
        return lambda sources: sources.app_settings
    return lambda sources: _at(decode_untyped(sources.app_settings), keys)


def _document(keys: Sequence[str]) -> _Value:
    [key] = keys
    return lambda sources: sources.document.get(key, UNSET)


_ROOTS = {"body": _body, "user": _user, "appSettings": _app_settings, "document": _document}


def _at(value: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        value = value.get(key, UNSET) if isinstance(value, dict) else UNSET
    return value


def _described(user: User) -> Object:
    values = (user.id, user.email, user.name, user.organization_id, user.issuer)
    return dict(zip(USER_FIELDS, values, strict=True))


def _whole_body(sources: Sources) -> Object:
    return without_send_at(sources.body)
