"""The Inngest function that processes an uploaded document: the example to copy.

Work that may fail for a while is a step. A step may run twice, so it changes nothing outside. A
failure that can't get better is a NonRetriableError. The announcement at the end is a step whose
event id comes from the first event's id, so that a repeat announces nothing twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import inngest

from inngest_outbox.documents.bucket import Bucket
from inngest_outbox.documents.document_name import check_document_name
from inngest_outbox.errors import (
    DocumentNameInvalidError,
    DocumentNameRequiredError,
    DocumentNotFoundError,
)

INDEXED = "documents/aws.indexed"
_CONCURRENT_RUNS = 4
_RETRIES = 5

Facts = dict[str, str | int]


def index_function(
    client: inngest.Inngest, bucket: Bucket, event_name: str
) -> inngest.Function[Facts]:
    """The function that runs on `event_name`: reads the document and announces it as INDEXED.

    The document is streamed, never held in memory. A missing document, or one in another bucket,
    fails the run at once. When S3 can't be asked, the step is retried.
    """

    async def read(name: str) -> Facts:
        digest = hashlib.sha256()
        try:
            found = await bucket.download(name, digest.update)
        except DocumentNotFoundError as error:
            raise inngest.NonRetriableError(str(error)) from error
        return {
            "size": found.size_bytes,
            "sha256": digest.hexdigest(),
            "contentType": found.content_type,
        }

    @client.create_function(
        fn_id="index-document",
        trigger=inngest.TriggerEvent(event=event_name),
        concurrency=[inngest.Concurrency(limit=_CONCURRENT_RUNS)],
        retries=_RETRIES,
    )
    async def index_document(ctx: inngest.Context) -> Facts:
        name = _document_name(ctx.event.data, bucket)
        content = await ctx.step.run("read", read, name)
        facts: Facts = {"documentName": name, "bucket": bucket.name, "region": bucket.region}
        facts |= content
        event = inngest.Event(name=INDEXED, id=f"{ctx.event.id}-indexed", data=facts)
        await ctx.step.send_event("announce", event)
        return facts

    return index_document


def _document_name(data: Mapping[str, object], bucket: Bucket) -> str:
    if data.get("bucket", bucket.name) != bucket.name:
        raise inngest.NonRetriableError("the document is in another bucket than this worker's")
    try:
        return check_document_name(data.get("documentName"))
    except (DocumentNameRequiredError, DocumentNameInvalidError) as error:
        raise inngest.NonRetriableError(str(error)) from error
