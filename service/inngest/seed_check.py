"""Whether Inngest gives events the ULIDs of their rows, as the seed of each request asks.

A server that ignores seeds can't be asked which events it holds: no ULID would ever be found, and
every event would be sent again and again. The invariant: a row waits for its confirmation only when
the answer showed its ULID.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from service.inngest.send_result import SendResult
from service.outbox.inngest_id import InngestIds
from service.outbox.model import Batch

_LOG_EVERY_SECONDS = 60.0

log = structlog.get_logger(__name__)


class SeedCheck:
    """Compares the ids in answers with those of `ids`; None: no comparison.

    `clock` gives seconds and does not jump.
    """

    def __init__(
        self, ids: InngestIds | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ids = ids
        self._clock = clock
        self._logged_at = float("-inf")

    def is_honoured(self, batch: Batch, result: SendResult) -> bool:
        """Whether the first event that was taken has the ULID of its row."""
        if self._ids is None or not result.ids or not result.ids[0]:
            return True
        first = batch.entries[0]
        expected = self._ids.ulid(first.seq, first.accepted_at_ms, first.inngest_id)
        if result.ids[0] == expected:
            return True
        self._report(first.event_id)
        return False

    def _report(self, event_id: str) -> None:
        now = self._clock()
        if now - self._logged_at > _LOG_EVERY_SECONDS:
            self._logged_at = now
            log.error("inngest_ignores_seeds", event_id=event_id)
