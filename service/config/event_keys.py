"""How OUTBOX_EVENT_KEYS is written: pairs of a name and a key."""

from __future__ import annotations

import re
from collections.abc import Iterable

# A key is a segment of the path that clients post to, and they do not encode it.
_is_key = re.compile(r"[A-Za-z0-9._~!$&'()*+;=:@-]{1,255}").fullmatch
_is_name = re.compile(r"[A-Za-z0-9._-]{1,64}").fullmatch


def parse_event_keys(pairs: Iterable[str]) -> dict[str, str]:
    """The names by key, from `name:key` pairs.

    Raises ValueError with a sentence that holds no key.

    >>> parse_event_keys(["cron:0123456789abcdef", "cron:fedcba9876543210"])
    {'0123456789abcdef': 'cron', 'fedcba9876543210': 'cron'}
    """
    names: dict[str, str] = {}
    for number, pair in enumerate(pairs, start=1):
        name, _, key = (part.strip() for part in pair.partition(":"))
        if not _is_name(name) or not _is_key(key):
            raise ValueError(
                f"write pair {number} as name:key; a name has letters, digits, . _ and -, "
                "a key no space, slash, comma, % or quote"
            )
        if names.setdefault(key, name) != name:
            raise ValueError(f"{names[key]} and {name} have the same key")
    return names
