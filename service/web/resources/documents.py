"""Posting a document for indexing: the event type behind POST /api/route."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta

from service.app_settings.app_settings import AppSettings
from service.documents.document_name import MAX_NAME_BYTES, check_document_name
from service.documents.document_scope import DocumentScope, check_document_scope
from service.errors import (
    DocumentNameInvalidError,
    DocumentNameRequiredError,
    DocumentNotFoundError,
    StorageNotConfiguredError,
    StorageUnavailableError,
)
from service.identity.user import User
from service.web.resources.event_route import EventType

_NAME_SCHEMA = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_NAME_BYTES,
    "description": "The document's key in the bucket, at most 1,024 bytes of UTF-8.",
}


_SEND_AT = "Hold the event until then: milliseconds since 1970. A time in the past holds nothing."
_LAST_SEND_AT = 4_102_444_800_000  # 2100-01-01


class IndexDocument(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Which document to index."""

    document_name: Annotated[Any, Meta(extra_json_schema=_NAME_SCHEMA)] = UNSET
    send_at: Annotated[int, Meta(ge=0, le=_LAST_SEND_AT, description=_SEND_AT)] | None = None


class DocumentData(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """The event's data. `object` and `unchecked` come from DOCUMENT_CHECK."""

    document_name: str
    bucket: str
    region: str
    app_settings: msgspec.Raw
    object: Mapping[str, Any] | None = None
    unchecked: bool = False


def documents_event(
    *,
    region: str | None,
    bucket: str | None,
    app_settings: AppSettings,
    look_up: Callable[[str], Awaitable[Mapping[str, Any]]],
    scope: DocumentScope = "uploads",
) -> EventType[IndexDocument]:
    """The event `documents/aws.index`.

    `look_up` returns what to add to the data of a document. `scope` says which documents a user may
    name.
    """
    missing = [
        name for name, value in (("AWS_S3_REGION", region), ("AWS_S3_BUCKET", bucket)) if not value
    ]

    def require() -> None:
        if missing:
            raise StorageNotConfiguredError(f"Not configured: {', '.join(missing)}.")

    def check(body: IndexDocument) -> None:
        check_document_name(body.document_name)

    async def data(body: IndexDocument, user: User) -> DocumentData:
        check_document_scope(scope, user.owner, body.document_name)
        found = await look_up(body.document_name)
        settings = await app_settings.effective(user)
        return DocumentData(body.document_name, bucket or "", region or "", settings, **found)

    return EventType(
        path="/api/route",
        name="documents/aws.index",
        body=IndexDocument,
        summary="Hand a document over for indexing",
        require=require,
        check=check,
        data=data,
        refusals=(
            StorageNotConfiguredError,
            DocumentNameRequiredError,
            DocumentNameInvalidError,
            DocumentNotFoundError,
            StorageUnavailableError,
        ),
        required=("documentName",),
        send_at=lambda body: body.send_at,
        example={"documentName": "reports/2026.pdf"},
    )
