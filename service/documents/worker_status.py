"""Whether the worker is connected to Inngest, for its health endpoint."""

from __future__ import annotations

import time


class WorkerStatus:
    """The state of one worker's connection. `reason` says why there is none."""

    def __init__(self) -> None:
        self.connected = False
        self.reason = "not connected yet"
        self._since = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the state last changed."""
        return time.monotonic() - self._since

    def connect(self) -> None:
        """Note that the worker is connected and its functions are registered."""
        self._turn(connected=True, reason="")

    def disconnect(self, reason: str) -> None:
        """Note that there is no connection. Another reason does not restart the time."""
        self._turn(connected=False, reason=reason)

    def _turn(self, *, connected: bool, reason: str) -> None:
        if connected != self.connected:
            self._since = time.monotonic()
        self.connected, self.reason = connected, reason
