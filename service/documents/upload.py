"""The rules of an upload: the key of a document, its media type and its size."""

from __future__ import annotations

import re

from service.documents.document_name import MAX_NAME_BYTES, check_document_name, upload_prefix
from service.errors import DocumentNameInvalidError, InvalidFieldError

MAX_UPLOAD_BYTES = 5 * 1024**3  # the limit of S3 for a single POST
MAX_TYPE_CHARS = 255
# S3 replaces it by the uploaded file's own name, in every field of a form.
_TEMPLATE = "${filename}"
_RESTRICTED = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_WORD = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_is_media_type = re.compile(
    rf'{_RESTRICTED}/{_RESTRICTED}(?:[ \t]*;[ \t]*{_WORD}=(?:{_WORD}|"[ !#-\[\]-~]*"))*'
).fullmatch


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
