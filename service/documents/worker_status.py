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
        """How long the state has been what it is."""
        return time.monotonic() - self._since

    def connect(self) -> None:
        """The connection is made and the functions are registered."""
        self._turn(connected=True, reason="")

    def disconnect(self, reason: str) -> None:
        """There is no connection; repeated with another reason, the time counts on."""
        self._turn(connected=False, reason=reason)

    def _turn(self, *, connected: bool, reason: str) -> None:
        if connected != self.connected:
            self._since = time.monotonic()
        self.connected, self.reason = connected, reason
