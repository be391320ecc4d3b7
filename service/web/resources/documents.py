"""Posting a document for indexing: the event type behind POST /api/route."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """Where the documents are, and what an event says of one.

    `look_up` returns what to add to the data of a document. `scope` says which documents a user may
    name.
    """

    region: str | None
    bucket: str | None
    app_settings: AppSettings
    look_up: Callable[[str], Awaitable[Mapping[str, Any]]]
    scope: DocumentScope = "uploads"

    def require(self) -> None:
        """Raise StorageNotConfiguredError when the bucket or its region is not set."""
        named = (("AWS_S3_REGION", self.region), ("AWS_S3_BUCKET", self.bucket))
        missing = [name for name, value in named if not value]
        if missing:
            raise StorageNotConfiguredError(f"Not configured: {', '.join(missing)}.")

    async def data(self, body: IndexDocument, user: User) -> DocumentData:
        """The data of the event. Raises DocumentNotFoundError, OutboxUnavailableError."""
        check_document_scope(self.scope, user.owner, body.document_name)
        found = await self.look_up(body.document_name)
        settings = await self.app_settings.effective(user)
        return DocumentData(
            body.document_name, self.bucket or "", self.region or "", settings, **found
        )


def documents_event(documents: Documents) -> EventType[IndexDocument]:
    """The event `documents/aws.index`."""
    return EventType(
        path="/api/route",
        name="documents/aws.index",
        body=IndexDocument,
        summary="Hand a document over for indexing",
        require=documents.require,
        check=_check,
        data=documents.data,
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


def _check(body: IndexDocument) -> None:
    check_document_name(body.document_name)
