"""The sentence of a page about the change before it."""

from __future__ import annotations

from collections.abc import Mapping

from service.console.operations.changing.proposals import Action
from service.console.pages.filter_form import read_number

_DONE = {Action.REPLAY.value: "Replayed", Action.DISCARD.value: "Discarded"}
_THEN = {Action.REPLAY.value: " They go out again under their ids.", Action.DISCARD.value: ""}


def notice_of(query: Mapping[str, str]) -> str:
    """A sentence about the last change, from an address's query. Raises InvalidFieldError."""
    action = query.get("done", "")
    if action not in _DONE:
        return ""
    count = read_number(query, "count") or 0
    skipped = read_number(query, "skipped") or 0
    rest = f" {events(skipped)} had changed meanwhile and were left alone." if skipped else ""
    return f"{_DONE[action]} {events(count)}.{_THEN[action] if count else ''}{rest}"


def events(count: int) -> str:
    """A number of events in words.

    >>> events(1), events(1200)
    ('1 event', '1,200 events')
    """
    return f"{count:,} event{'' if count == 1 else 's'}"
