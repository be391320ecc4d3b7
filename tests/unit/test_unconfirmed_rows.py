"""Rows that were sent while confirmation was on become delivered when it is off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest
import structlog

from service.outbox.ports import Confirmations
from service.outbox.sent_entry import SentEntry
from service.relay.unconfirmed_rows import deliver_unconfirmed


class Sent:
    """So many sent rows, of which some are settled by another process meanwhile."""

    def __init__(self, count: int, gone: Sequence[int]) -> None:
        self.rows = range(1, count + 1)
        self.gone = gone
        self.limits: list[int] = []
        self.asked: list[int] = []

    async def sent(self, limit: int, after_seq: int = 0) -> Sequence[SentEntry]:
        self.limits.append(limit)
        found = [seq for seq in self.rows if seq > after_seq][:limit]
        return [SentEntry(seq, f"e-{seq}", 0, 1.0) for seq in found]

    async def confirm(self, seqs: Sequence[int]) -> int:
        self.asked += seqs
        return sum(seq not in self.gone for seq in seqs)


@pytest.mark.parametrize(
    ("count", "gone", "pages"), [(0, [], 1), (1, [1], 2), (1, [], 2), (1201, [7], 4)]
)
async def test_all_rows_become_delivered_page_by_page(
    count: int, gone: Sequence[int], pages: int
) -> None:
    store, delivered = Sent(count, gone), count - len(gone)
    with structlog.testing.capture_logs() as lines:
        assert await deliver_unconfirmed(cast("Confirmations", store)) == delivered
    assert (store.asked, store.limits) == ([*store.rows], [500] * pages)
    said = {"event": "delivered_unconfirmed", "log_level": "warning", "events": delivered}
    assert lines == ([said] if delivered else [])
