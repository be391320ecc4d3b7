"""The documents of the bucket that event types may name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from service.documents.document_name import DocumentScope, check_document_name, check_document_scope
from service.errors import (
    DocumentNameInvalidError,
    DocumentNameRequiredError,
    DocumentNotFoundError,
    StorageNotConfiguredError,
    StorageUnavailableError,
)

DOCUMENT_NAME = "documentName"
DOCUMENT_REFUSALS = (
    StorageNotConfiguredError,
    DocumentNameRequiredError,
    DocumentNameInvalidError,
    DocumentNotFoundError,
    StorageUnavailableError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """Where the documents are, and what an event says of one.

    `look_up` returns what is known of a document. `scope` says which documents a user may name.
    """

    region: str | None
    bucket: str | None
    look_up: Callable[[str], Awaitable[Mapping[str, Any]]]
    scope: DocumentScope = "uploads"

    def require(self) -> None:
        """Raise StorageNotConfiguredError when the bucket or its region is not set."""
        if self.region and self.bucket:
            return
        named = (("AWS_S3_REGION", self.region), ("AWS_S3_BUCKET", self.bucket))
        missing = [name for name, value in named if not value]
        raise StorageNotConfiguredError(f"Not configured: {', '.join(missing)}.")

    def check(self, body: Mapping[str, Any]) -> None:
        """Raise DocumentNameRequiredError or DocumentNameInvalidError for the name in `body`."""
        check_document_name(body.get(DOCUMENT_NAME))

    def describe(self, body: Mapping[str, Any], owner: str) -> Awaitable[Mapping[str, Any]]:
        """The facts about the document in `body`. Raises DocumentNotFoundError."""
        name = body[DOCUMENT_NAME]
        check_document_scope(self.scope, owner, name)
        return self.look_up(name)
