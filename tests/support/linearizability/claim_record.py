"""The record of claims: what was taken, and what of it nobody was told of and is due again."""

from __future__ import annotations

import asyncio

import psycopg

from inngest_outbox.bootstrap.stores import Outbox
from inngest_outbox.outbox.model import Batch, ClaimRequest
from inngest_outbox.outbox.postgres.store import ServedPostgresOutbox
from inngest_outbox.outbox.sqlite.store import SqliteOutbox
from tests.support.linearizability.record import Recorder

CLAIMED = """
SELECT array_agg(event_id) FROM outbox.claims AS c JOIN outbox.events AS o ON o.seq = ANY(c.seqs)
WHERE claim = ANY(%(claims)s::text[]) GROUP BY claim
"""


def record_claims(outbox: Outbox, recorder: Recorder) -> None:
    """Record the claims of this outbox from now on, and the releases of those that were lost."""
    if isinstance(outbox, SqliteOutbox):
        _record_on_sqlite(outbox, recorder)
    else:
        _record_on_postgres(outbox, recorder)


def event_ids(batch: Batch) -> list[str]:
    """The ids of the events of a batch."""
    return [entry.event_id for entry in batch.entries]


def _record_on_sqlite(outbox: SqliteOutbox, recorder: Recorder) -> None:
    """A cancelled claim takes nothing, or what it took is released."""
    claim, abandon = outbox.queue.claim, outbox.claims.abandon

    async def claiming(wanted: ClaimRequest) -> Batch:
        return await recorder.watched(
            "claim", None, lambda: claim(wanted), event_ids, when_cancelled=[]
        )

    def abandoning(batch: Batch) -> None:
        recorder.begin("release", event_ids(batch))
        abandon(batch)

    outbox.queue.claim = claiming  # type: ignore[method-assign]
    outbox.claims.abandon = abandoning  # type: ignore[method-assign]


def _record_on_postgres(outbox: ServedPostgresOutbox, recorder: Recorder) -> None:
    """Attempts are recorded: one goes on after its claim was cancelled, and may be answered then.

    What an attempt without an answer took is looked for before it is released.
    """
    queue, known = outbox.queue, set[str]()
    attempt_once, abandon, release = queue._attempt, queue._abandon, queue._release_lost

    async def attempting(wanted: ClaimRequest) -> Batch | None:
        return await recorder.watched("claim", None, lambda: attempt_once(wanted), _taken)

    def abandoning(attempt: asyncio.Task[Batch | None]) -> None:
        if not attempt.cancelled() and not attempt.exception() and (found := attempt.result()):
            known.add(found.claim)
            recorder.begin("return", event_ids(found))
        abandon(attempt)

    async def releasing() -> None:
        while lost := queue._lost - known:
            async with await psycopg.AsyncConnection.connect(outbox.url) as looking:
                cursor = await looking.execute(CLAIMED, {"claims": list(lost)})
                for (ids,) in await cursor.fetchall():
                    recorder.begin("release", ids)
            known.update(lost)
        await release()

    queue._attempt = attempting  # type: ignore[method-assign]
    queue._abandon = abandoning  # type: ignore[method-assign]
    queue._release_lost = releasing  # type: ignore[method-assign]


def _taken(found: Batch | None) -> list[str]:
    return event_ids(found) if found else []
