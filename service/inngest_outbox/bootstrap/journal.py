"""The journal of an SQLite outbox, where OUTBOX_JOURNAL names one."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager

from inngest_outbox.config.destination import Destination, destination
from inngest_outbox.config.settings import Settings
from inngest_outbox.documents.bucket import Bucket
from inngest_outbox.inngest.address import inngest_address
from inngest_outbox.journal.bucket import JournalBucket
from inngest_outbox.journal.desk import JournalLook, JournalReader
from inngest_outbox.journal.journal import S3Journal
from inngest_outbox.journal.upkeep import Upkeep
from inngest_outbox.observe.recorder import Recorder
from inngest_outbox.outbox.sqlite.file.journalled import Known
from inngest_outbox.outbox.sqlite.store import SqliteOutbox


@contextlib.asynccontextmanager
async def open_journalled(
    settings: Settings,
    recorder: Recorder,
    opening: Callable[..., AbstractAsyncContextManager[SqliteOutbox]],
) -> AsyncIterator[SqliteOutbox]:
    """The outbox that `opening` opens, with the journal that OUTBOX_JOURNAL names.

    It has brought back what the file has never had, unless the bucket is away.
    """
    async with contextlib.AsyncExitStack() as stack:
        journal = S3Journal(
            await stack.enter_async_context(_bucket(settings)),
            _destination(settings),
            recorder,
            accepts=settings.journal_away == "accept",
            puts_per_second=settings.journal_puts_per_second,
        )
        outbox = await stack.enter_async_context(opening(journal=journal))
        upkeep = Upkeep(journal, outbox.journalled)
        outbox.journal = await stack.enter_async_context(upkeep.running())
        yield outbox


@contextlib.asynccontextmanager
async def journal_reader(
    settings: Settings, known: Mapping[str, Known]
) -> AsyncIterator[JournalLook]:
    """The journal as a file sees it that knows of these starts; nothing is changed."""
    async with _bucket(settings) as bucket:
        yield JournalReader(bucket, known)


@contextlib.asynccontextmanager
async def _bucket(settings: Settings) -> AsyncIterator[JournalBucket]:
    name, prefix = settings.journal_place or ("", "")
    async with Bucket(name, settings.s3_region or "") as bucket:
        bucket.open_soon()
        yield JournalBucket(bucket, prefix)


def _destination(settings: Settings) -> str:
    """The Inngest that events go to. Fake ones change their address, so they are one."""
    kind = destination(settings)
    if kind is Destination.FAKE:
        return str(kind)
    address = inngest_address(settings)
    environment = f" {address.environment}" if address.environment else ""
    return f"{address.event_api_origin}{environment}"
