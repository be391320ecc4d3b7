"""A recorder for tests."""

from __future__ import annotations

from typing import Any


class Figures:
    """A recorder that keeps what it gets, in order."""

    def __init__(self) -> None:
        self.got: list[tuple[Any, ...]] = []

    def count(self, name: str, value: float = 1, /, **labels: str) -> None:
        self.got.append(("count", name, value, *labels.items()))

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        self.got.append(("gauge", name, value, *labels.items()))

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        self.got.append(("observe", name, value, *labels.items()))
