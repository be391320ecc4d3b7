"""DOCUMENT_SCOPE: which documents of the bucket a user may name.

Each user's uploads have a prefix of their own. A name that is not the user's is refused like one
that does not exist, so that no user learns which documents others have. Names are compared without
repeated and leading slashes: an S3 server over a file system takes `users//x` for `users/x`.
"""

from __future__ import annotations

import hashlib
import re
from typing import Literal

from service.errors import DocumentNotFoundError

DocumentScope = Literal["own", "uploads", "any"]

_UPLOADS = "users/"
_SLASHES = re.compile("/+")


def upload_prefix(owner: str) -> str:
    """Where the documents of `owner` are: `users/` and 32 hex digits of the SHA-256 of the owner.

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
    plain = _SLASHES.sub("/", document_name).lstrip("/")
    if scope == "uploads" and not plain.startswith(_UPLOADS):
        return
    if not document_name.startswith(upload_prefix(owner)):
        raise DocumentNotFoundError
