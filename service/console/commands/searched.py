"""How far a search has gone, for people."""

from __future__ import annotations

from service.console.operations.explain import spoken_time


def searched_to(at_ms: int, rest: str) -> str:
    """A sentence about a search that has not ended; `rest` says how it goes on.

    >>> searched_to(1795559419447, "12 rows found")
    'Searched back to rows of 2026-11-24 22:30:19 UTC; 12 rows found.'
    """
    return f"Searched back to rows of {spoken_time(at_ms)}; {rest}."
