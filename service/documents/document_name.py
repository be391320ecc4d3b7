"""The rules of a documentName.

Every `POST /api/route` passes through `check_document_name`, so the common case (printable ASCII
without a dot segment) costs a handful of string scans in C. A change must keep every accepted name
a valid S3 key: at most 1,024 bytes of UTF-8 that no path normalisation changes.
"""

from __future__ import annotations

import re

from msgspec import UNSET

from service.errors import DocumentNameInvalidError, DocumentNameRequiredError

MAX_NAME_BYTES = 1024

_find_control = re.compile(r"[\x00-\x1f\x7f-\x9f]").search
_find_dot_segment = re.compile(r"(?:\A|/)\.\.?(?:/|\Z)").search


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
