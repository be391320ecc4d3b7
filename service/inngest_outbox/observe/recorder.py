"""The recorder port, and the recorder that does nothing.

Code that measures takes a Recorder. `inngest_outbox.observe.metrics` lists the names, units and
labels. A recorder never raises: measuring must not break what is measured.
"""

from __future__ import annotations

from typing import Protocol


class Recorder(Protocol):
    """Takes figures. Labels are keyword arguments."""

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
    """Does nothing; the default."""

    def count(self, name: str, value: float = 1, /, **labels: str) -> None:
        """Do nothing."""

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        """Do nothing."""

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """Do nothing."""
