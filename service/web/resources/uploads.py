"""POST /api/uploads: a signed form that a browser posts straight to S3.

The bytes never pass through the service. Each user's keys start with a prefix made from the user,
so that no upload overwrites another user's document. POST /api/route takes the `documentName` of
the answer.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from service.documents.bucket import UPLOAD_SECONDS, Bucket
from service.documents.document_name import MAX_NAME_BYTES, check_document_name
from service.documents.document_scope import upload_prefix
from service.errors import (
    DocumentNameInvalidError,
    DocumentNameRequiredError,
    InvalidFieldError,
    StorageNotConfiguredError,
    StorageUnavailableError,
)
from service.identity.user import User
from service.web.auth import SIGNED_IN_REFUSALS
from service.web.body import JSON_REFUSALS, read_json
from service.web.openapi.endpoint import Answer, Body, Endpoint

MAX_UPLOAD_BYTES = 5 * 1024**3  # the limit of S3 for a single POST
_MAX_TYPE_CHARS = 255
# S3 replaces it by the uploaded file's own name, in every field of a form.
_TEMPLATE = "${filename}"
_RESTRICTED = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_WORD = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_is_media_type = re.compile(
    rf'{_RESTRICTED}/{_RESTRICTED}(?:[ \t]*;[ \t]*{_WORD}=(?:{_WORD}|"[ !#-\[\]-~]*"))*'
).fullmatch
_NAME = {"type": "string", "minLength": 1, "description": "The document's file name."}
_TYPE = {
    "type": "string",
    "maxLength": _MAX_TYPE_CHARS,
    "description": "Its media type, such as application/pdf.",
}
_SIZE = {
    "type": "integer",
    "minimum": 1,
    "maximum": MAX_UPLOAD_BYTES,
    "description": "Its size in bytes.",
}
_UPLOAD_EXAMPLE = {"documentName": "report.pdf", "contentType": "application/pdf", "size": 48213}
_ANSWER_EXAMPLE = {
    "status": "ok",
    "documentName": "users/a24a7f55f278dd49fb1f99c5507800cb/report.pdf",
    "upload": {
        "method": "POST",
        "url": "https://documents.s3.eu-west-1.amazonaws.com",
        "fields": {"key": "users/a24a7f55f278dd49fb1f99c5507800cb/report.pdf", "policy": "eyJ…"},
    },
    "expiresInSeconds": UPLOAD_SECONDS,
}
_encode = msgspec.json.Encoder().encode


class UploadBody(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The document to upload. The upload must match all three fields."""

    document_name: Annotated[Any, Meta(extra_json_schema=_NAME)] = None
    content_type: Annotated[Any, Meta(extra_json_schema=_TYPE)] = None
    size: Annotated[Any, Meta(extra_json_schema=_SIZE)] = None


class UploadForm(msgspec.Struct, frozen=True, gc=False):
    """Where and what to POST. The file is the last field, `file`."""

    method: Literal["POST"]
    url: str
    fields: dict[str, str]


class UploadAnswer(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The signed form and the name of the document."""

    status: Literal["ok"]
    document_name: str
    upload: UploadForm
    expires_in_seconds: int


_body = msgspec.json.Decoder(UploadBody)
_ERRORS = (
    StorageNotConfiguredError,
    StorageUnavailableError,
    *SIGNED_IN_REFUSALS,
    *JSON_REFUSALS,
    DocumentNameRequiredError,
    DocumentNameInvalidError,
)


class Uploads:
    """The handler under /api/uploads.

    `storage` returns the open bucket or raises StorageNotConfiguredError. `user_of` returns the
    user of a state-changing request, or raises the refusal.
    """

    def __init__(
        self,
        *,
        storage: Callable[[], Bucket],
        user_of: Callable[[web.Request], Awaitable[User]],
    ) -> None:
        self._storage = storage
        self._user_of = user_of

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [web.post("/api/uploads", self.create)]

    def endpoints(self) -> list[Endpoint]:
        """What the API's description says."""
        return [
            Endpoint(
                method="POST",
                path="/api/uploads",
                name="createUpload",
                tag="documents",
                summary="A signed form for uploading a document straight to S3",
                body=Body(UploadBody, _UPLOAD_EXAMPLE, ("documentName", "contentType", "size")),
                answers={200: Answer("The signed form", UploadAnswer, _ANSWER_EXAMPLE)},
                errors=_ERRORS,
            )
        ]

    async def create(self, request: web.Request) -> web.Response:
        """Sign an upload of exactly the named key, content type and size."""
        bucket = self._storage()
        user = await self._user_of(request)
        body = await read_json(request, _body)
        key = upload_key(user.owner, body.document_name)
        form = await bucket.presign_upload(
            key, _check_content_type(body.content_type), _check_size(body.size)
        )
        answer = UploadAnswer("ok", key, UploadForm("POST", form.url, form.fields), UPLOAD_SECONDS)
        return web.Response(
            body=_encode(answer),
            content_type="application/json",
            headers={"Cache-Control": "no-store"},
        )


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


def _check_content_type(value: object) -> str:
    given = value if isinstance(value, str) and len(value) <= _MAX_TYPE_CHARS else ""
    if _TEMPLATE in given or not _is_media_type(given):
        raise InvalidFieldError("contentType is not a media type such as application/pdf")
    return given


def _check_size(value: object) -> int:
    if type(value) is int and 1 <= value <= MAX_UPLOAD_BYTES:
        return value
    raise InvalidFieldError("size is not a whole number of bytes from 1 to 5 GiB")
