"""The record of releases: what a claim took that nobody was told of is due again at some moment."""

from __future__ import annotations

import asyncio

from service.bootstrap.stores import Outbox
from service.outbox.model import Batch
from service.outbox.postgres.store import PostgresOutbox
from service.outbox.sqlite.store import SqliteOutbox
from tests.support.linearizability.record import Recorder

CLAIMED = """
SELECT array_agg(event_id) FROM outbox_claims AS c JOIN outbox AS o ON o.seq = ANY(c.seqs)
WHERE claim = ANY(%(claims)s::text[]) GROUP BY claim
"""


def record_releases(outbox: Outbox, recorder: Recorder) -> None:
    """Record batches whose claim was cancelled, or on PostgreSQL lost its answer."""
    if isinstance(outbox, SqliteOutbox):
        _record_abandoned(outbox, recorder)
    else:
        _record_lost(outbox, recorder)


def _record_abandoned(outbox: SqliteOutbox, recorder: Recorder) -> None:
    abandon = outbox.claims.abandon

    def abandoning(batch: Batch) -> None:
        recorder.begin("release", event_ids(batch))
        abandon(batch)

    outbox.claims.abandon = abandoning  # type: ignore[method-assign]


def _record_lost(outbox: PostgresOutbox, recorder: Recorder) -> None:
    """What a claim without an answer took is looked for before it is released."""
    leases, recorded = outbox.queue._leases, set[str]()
    lose, release = outbox.queue._abandon, leases.release_lost

    def losing(attempt: asyncio.Task[Batch | float]) -> None:
        if not attempt.cancelled() and not attempt.exception():
            found = attempt.result()
            if isinstance(found, Batch):
                recorded.add(found.claim)
                recorder.begin("release", event_ids(found))
        lose(attempt)

    async def releasing() -> int:
        while lost := leases._lost - recorded:
            for (ids,) in await outbox.pool.run(CLAIMED, {"claims": list(lost)}):
                recorder.begin("release", ids)
            recorded.update(lost)
        return await release()

    outbox.queue._abandon = losing  # type: ignore[method-assign]
    leases.release_lost = releasing  # type: ignore[method-assign]


def event_ids(batch: Batch) -> list[str]:
    """The ids of the events of a batch."""
    return [entry.event_id for entry in batch.entries]
