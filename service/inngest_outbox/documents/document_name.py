"""The rules of a documentName and of an upload; the documents that a user and an event may name.

Every `POST /api/route` passes through `check_document_name`, so the common case (printable ASCII
without a dot segment) costs a handful of string scans in C. A change must keep every accepted name
a valid S3 key: at most 1,024 bytes of UTF-8 that no path normalisation changes.

Each user's uploads have a prefix of their own. A name that is not the user's is refused like one
that does not exist, so that no user learns which documents others have. Names are compared without
leading slashes: an S3 server over a file system takes `/users/x` for `users/x`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from msgspec import UNSET

from inngest_outbox.errors import (
    DocumentNameInvalidError,
    DocumentNameRequiredError,
    DocumentNotFoundError,
    InvalidFieldError,
    StorageNotConfiguredError,
    StorageUnavailableError,
)

MAX_NAME_BYTES = 1024

_find_control = re.compile(r"[\x00-\x1f\x7f-\x9f]").search
_find_dot_segment = re.compile(r"(?:\A|/)\.\.?(?:/|\Z)").search
DocumentScope = Literal["own", "uploads", "any"]

_UPLOADS = "users/"
MAX_UPLOAD_BYTES = 5 * 1024**3  # the limit of S3 for a single POST
MAX_TYPE_CHARS = 255
# S3 replaces it by the uploaded file's own name, in every field of a form.
_TEMPLATE = "${filename}"
_RESTRICTED = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_WORD = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_is_media_type = re.compile(
    rf'{_RESTRICTED}/{_RESTRICTED}(?:[ \t]*;[ \t]*{_WORD}=(?:{_WORD}|"[ !#-\[\]-~]*"))*'
).fullmatch
DOCUMENT_NAME = "documentName"
DOCUMENT_REFUSALS = (
    StorageNotConfiguredError,
    DocumentNameRequiredError,
    DocumentNameInvalidError,
    DocumentNotFoundError,
    StorageUnavailableError,
)


def check_document_name(value: object) -> str:
    """Return the name unchanged.

    Raises DocumentNameRequiredError when it is missing (None, UNSET) or blank, and
    DocumentNameInvalidError when it isn't a string, is over 1,024 bytes of UTF-8, or has a control
    character, a lone surrogate, or a `.` or `..` path segment.
    """
    if not isinstance(value, str):
        if value is None or value is UNSET:
            raise DocumentNameRequiredError
        raise DocumentNameInvalidError("documentName is not a string")
    if not value or value.isspace():
        raise DocumentNameRequiredError
    if not (value.isascii() and value.isprintable() and len(value) <= MAX_NAME_BYTES):
        _check_characters(value)
    # A dot segment starts the name or follows a slash: two scans spare most names the search.
    if (value[0] == "." or "/." in value) and _find_dot_segment(value):
        raise DocumentNameInvalidError("documentName has a . or .. path segment")
    return value


def _check_characters(value: str) -> None:
    if _find_control(value):
        raise DocumentNameInvalidError("documentName has a control character")
    try:
        size_bytes = len(value.encode())
    except UnicodeEncodeError:
        # The original error holds the name; it must not reach a log as a cause.
        raise DocumentNameInvalidError("documentName has a lone surrogate") from None
    if size_bytes > MAX_NAME_BYTES:
        raise DocumentNameInvalidError("documentName is longer than 1,024 bytes of UTF-8")


def upload_prefix(owner: str) -> str:
    """The prefix of `owner`'s documents: `users/` and 32 hex digits of the SHA-256 of the owner.

    >>> upload_prefix("next-auth u-1")
    'users/605ef5bb3988b5edc2300df67f07bce3/'
    """
    digest = hashlib.sha256(owner.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{_UPLOADS}{digest[:32]}/"


def check_document_scope(scope: DocumentScope, owner: str, document_name: str) -> None:
    """Raise DocumentNotFoundError for a document that `owner` may not name.

    `own` allows the owner's uploads alone, `uploads` everything but the uploads of others, `any`
    everything.
    """
    if scope == "any":
        return
    if scope == "uploads" and not document_name.lstrip("/").startswith(_UPLOADS):
        return
    if not document_name.startswith(upload_prefix(owner)):
        raise DocumentNotFoundError


def upload_key(owner: str, document_name: object) -> str:
    """The key for a document of `owner`, which is a documentName.

    Raises DocumentNameRequiredError, DocumentNameInvalidError.
    """
    name = check_document_name(document_name)
    if _TEMPLATE in name:
        raise DocumentNameInvalidError("documentName contains ${filename}, which S3 would replace")
    key = upload_prefix(owner) + name
    if len(key.encode()) > MAX_NAME_BYTES:
        raise DocumentNameInvalidError("documentName is too long for an upload")
    return key


def check_content_type(value: object) -> str:
    """Return the media type. Raises InvalidFieldError."""
    given = value if isinstance(value, str) and len(value) <= MAX_TYPE_CHARS else ""
    if _TEMPLATE in given or not _is_media_type(given):
        raise InvalidFieldError("contentType is not a media type such as application/pdf")
    return given


def check_size(value: object) -> int:
    """Return the size in bytes. Raises InvalidFieldError."""
    if type(value) is int and 1 <= value <= MAX_UPLOAD_BYTES:
        return value
    raise InvalidFieldError("size is not a whole number of bytes from 1 to 5 GiB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """The place of the documents, and the facts that an event has of one.

    `look_up` returns what is known of a document. `scope` says which documents a user may name.
    `missing` are the variables without which there is no place.
    """

    region: str | None
    bucket: str | None
    look_up: Callable[[str], Awaitable[Mapping[str, Any]]]
    scope: DocumentScope
    missing: Sequence[str] = ()

    def require(self) -> None:
        """Raise StorageNotConfiguredError when the bucket or its region is not set."""
        if self.missing:
            raise StorageNotConfiguredError(f"Not configured: {', '.join(self.missing)}.")

    def check(self, body: Mapping[str, Any]) -> None:
        """Raise DocumentNameRequiredError or DocumentNameInvalidError for the name in `body`."""
        check_document_name(body.get(DOCUMENT_NAME))

    def describe(self, body: Mapping[str, Any], owner: str) -> Awaitable[Mapping[str, Any]]:
        """The facts about the document in `body`. Raises DocumentNotFoundError."""
        name = body[DOCUMENT_NAME]
        check_document_scope(self.scope, owner, name)
        return self.look_up(name)
