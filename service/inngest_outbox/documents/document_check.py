"""DOCUMENT_CHECK: asks the bucket about a document before its event is accepted.

`off` asks nothing. `enrich` adds what S3 knows and never refuses. `require` refuses a document that
S3 says is missing. When S3 can't be asked, every mode accepts the event: an outage of S3 is not the
caller's trouble.
"""

from __future__ import annotations

import asyncio
from typing import Literal

from inngest_outbox.documents.bucket import Bucket, DocumentObject
from inngest_outbox.errors import DocumentNotFoundError, StorageUnavailableError

Mode = Literal["off", "enrich", "require"]
Extra = dict[str, object]

_KNOWN_SECONDS = 5.0
_MAX_KNOWN = 1024


class DocumentCheck:
    """Takes a documentName and returns what to add to the event's data.

    Only an answer that found the document is cached, for 5 s: a cached "missing" would refuse a
    document that is uploaded a moment later. Simultaneous calls for one name share one request.
    """

    def __init__(self, mode: Mode, objects: Bucket) -> None:
        self._mode = mode
        self._objects = objects
        self._known: dict[str, tuple[float, Extra]] = {}
        self._asking: dict[str, asyncio.Task[Extra | None]] = {}

    async def __call__(self, document_name: str) -> Extra:
        """`object` when the document is there, `unchecked` when `require` could not ask.

        Raises DocumentNotFoundError (`require` only). Cancelling a call leaves the request to the
        other callers.
        """
        if self._mode == "off":
            return {}
        extra = self._recall(document_name)
        if extra is None:
            extra = await asyncio.shield(self._question(document_name))
        if extra is None and self._mode == "require":
            raise DocumentNotFoundError
        return extra or {}

    def _recall(self, name: str) -> Extra | None:
        until, extra = self._known.get(name, (0.0, None))
        return extra if asyncio.get_running_loop().time() < until else None

    def _question(self, name: str) -> asyncio.Task[Extra | None]:
        asking = self._asking.get(name)
        if asking is None:
            asking = self._asking[name] = asyncio.create_task(self._ask(name))
            asking.add_done_callback(lambda _: self._asking.pop(name))
        return asking

    async def _ask(self, name: str) -> Extra | None:
        """The fields to add, None when the document is missing."""
        try:
            found = await self._objects.head(name)
        except StorageUnavailableError:
            return {"unchecked": True} if self._mode == "require" else {}
        if found is None:
            return None
        extra: Extra = {"object": _as_data(found)}
        self._keep(name, extra)
        return extra

    def _keep(self, name: str, extra: Extra) -> None:
        if len(self._known) >= _MAX_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[name] = (asyncio.get_running_loop().time() + _KNOWN_SECONDS, extra)


def _as_data(found: DocumentObject) -> Extra:
    return {
        "size": found.size_bytes,
        "etag": found.etag,
        "contentType": found.content_type,
        "versionId": found.version_id,
    }
