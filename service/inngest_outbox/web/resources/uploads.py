"""POST /api/uploads: a signed form that a browser posts straight to S3.

The bytes never pass through the service. Each user's keys start with a prefix made from the user,
so that no upload overwrites another user's document. POST /api/route takes the `documentName` of
the answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from inngest_outbox.documents.bucket import UPLOAD_SECONDS, Bucket
from inngest_outbox.documents.document_name import (
    MAX_TYPE_CHARS,
    MAX_UPLOAD_BYTES,
    check_content_type,
    check_size,
    upload_key,
)
from inngest_outbox.errors import (
    DocumentNameInvalidError,
    DocumentNameRequiredError,
    OutboxUnavailableError,
    StorageNotConfiguredError,
    StorageUnavailableError,
)
from inngest_outbox.identity.user import User
from inngest_outbox.web.openapi.endpoint import Answer, Body, Endpoint
from inngest_outbox.web.server.answers import json_answer
from inngest_outbox.web.server.body import JSON_REFUSALS, read_json
from inngest_outbox.web.signin.auth import SIGNED_IN_REFUSALS

_NAME = {"type": "string", "minLength": 1, "description": "The document's file name."}
_TYPE = {
    "type": "string",
    "maxLength": MAX_TYPE_CHARS,
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


class UploadBody(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The document to upload. The upload must match all three fields."""

    document_name: Annotated[Any, Meta(extra_json_schema=_NAME)] = None
    content_type: Annotated[Any, Meta(extra_json_schema=_TYPE)] = None
    size: Annotated[Any, Meta(extra_json_schema=_SIZE)] = None


class UploadForm(msgspec.Struct, frozen=True, gc=False):
    """The form to POST. The file is its last field, `file`."""

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
    OutboxUnavailableError,
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
        """The entries of the API's description."""
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
            key, check_content_type(body.content_type), check_size(body.size)
        )
        answer = UploadAnswer("ok", key, UploadForm("POST", form.url, form.fields), UPLOAD_SECONDS)
        return json_answer(answer)
