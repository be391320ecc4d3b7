"""How deeply JSON is nested. What is too deep can be decoded, but not safely encoded again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MAX_DEPTH = 500


def is_too_deep(encoded: bytes, decoded: object) -> bool:
    """Whether the JSON `encoded`, which decodes to `decoded`, has more than 500 levels.

    >>> is_too_deep(b"[[1]]", [[1]])
    False
    """
    if encoded.count(b"[") + encoded.count(b"{") <= MAX_DEPTH:
        return False
    level = [decoded]
    for _ in range(MAX_DEPTH):
        level = [child for one in level for child in _containers(one)]
        if not level:
            return False
    return True


def _containers(value: Any) -> Iterator[Any]:
    children = value.values() if isinstance(value, dict) else value
    return (child for child in children if child and isinstance(child, dict | list))
