"""Which event names may be declared."""

from __future__ import annotations

import re

_MAX_CHARS = 256


def check_event_name(name: str) -> str:
    """Return the name of an event type.

    Raises ValueError for a name that can't be shown, and for one that the Event API refuses: empty,
    over 256 characters, or reserved in any case. Source: pkg/event, pkg/consts of Inngest v1.43.
    """
    if not name or len(name) > _MAX_CHARS:
        raise ValueError(f"an event name has 1 to {_MAX_CHARS} characters")
    if name.lower().startswith("inngest/"):
        raise ValueError("event names that start with inngest/ are reserved; choose another name")
    if not name.isprintable() or not re.search("[A-Za-z0-9]", name):
        raise ValueError("an event name has a letter or a digit, and no control characters")
    return name
