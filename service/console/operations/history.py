"""The outbox's history in minutes, which survives restarts: for charts and for stories of events.

A minute is kept in the outbox once it is over. Where several processes see the same outbox, the
first one to offer a minute keeps it.
"""

from __future__ import annotations

import structlog

from service.console.operations.minute import Minute
from service.console.operations.rates import Movement
from service.errors import OutboxUnavailableError
from service.outbox.operator_ports import Samples

log = structlog.get_logger(__name__)


class History:
    """Keeps each minute."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._minute = Minute()

    async def remember(self, now_ms: int, latest: Movement) -> None:
        """Take what was just seen. A store that fails loses the minute and nothing else."""
        over = self._minute.add(now_ms, latest)
        if over is None:
            return
        try:
            await self._samples.add(over)
        except OutboxUnavailableError as error:
            log.warning("sample_not_kept", reason=str(error))
