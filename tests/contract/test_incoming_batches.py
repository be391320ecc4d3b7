"""What a client sends is stored, whatever its names and ids are, and never in part."""

from __future__ import annotations

from service.identity.user import User
from service.observe.recorder import NullRecorder
from service.outbox.model import Filter
from service.web.intake.event_batch import BatchRequest, EventBatches
from tests.support.fuzzed_events import fuzzed_bodies
from tests.support.storage import Outbox

CRON = User("key", "cron")


async def test_all_good_events_of_fuzzed_requests_are_stored(outbox: Outbox) -> None:
    batches = EventBatches(outbox.intake, NullRecorder())
    ids: set[str] = set()
    for number, body in enumerate(fuzzed_bodies(3, 300)):
        request = BatchRequest(
            user=CRON, body=body, mark=f"seed {number}", mark_seconds=60, partly=True
        )
        receipts, _ = await batches.accept(request)
        ids |= {receipt.inngest_id for receipt in receipts}
    rows = await outbox.inspector.rows(Filter(limit=1000))
    assert {row.inngest_id for row in rows} == ids
    assert len(rows) > 50


async def test_texts_that_no_column_takes_as_they_are_do_no_harm(outbox: Outbox) -> None:
    batches = EventBatches(outbox.intake, NullRecorder())
    body = b'[{"name":"a\\u0000b","id":"i\\u0000","data":{"x":"\\u0000"}},{"name":"%s","id":"%s"}]'
    long = (b"n" * 300_000, b"i" * 300_000)
    receipts, error = await batches.accept(BatchRequest(user=CRON, body=body % long))
    assert (len(receipts), error) == (2, None)
    rows = await outbox.inspector.rows(Filter(owner=CRON.owner))
    assert [(len(row.name), len(row.meta.wire_id or "")) for row in rows] == [
        (300_000, 300_000),
        (3, 2),
    ]
    for row in rows:
        payload = await outbox.inspector.payload(row.id)
        assert payload
        assert (b"\\u0000" in payload) == (len(row.name) == 3)
