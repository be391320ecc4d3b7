"""The recorder port: what is counted, and the recorder that counts nothing.

Everything that measures takes a Recorder. The names, units and labels are the vocabulary in
`service.observe.metrics`. A recorder never raises into the path that it measures.
"""

from __future__ import annotations

from typing import Protocol


class Recorder(Protocol):
    """Where figures go. Labels are given as keywords."""

    def count(self, name: str, value: float = 1, /, **labels: str) -> None:
        """Add to a counter."""
        ...

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        """Set a gauge."""
        ...

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """Add one observation to a histogram."""
        ...


class NullRecorder:
    """Counts nothing."""

    def count(self, name: str, value: float = 1, /, **labels: str) -> None:
        """See Recorder.count."""

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        """See Recorder.gauge."""

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """See Recorder.observe."""
