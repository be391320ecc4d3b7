"""Text and JSON that every store can store."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})"
    r"|.)",
    re.DOTALL,
)


def storable(text: str) -> str:
    r"""The text without what PostgreSQL can't store: NUL characters and lone surrogates.

    >>> storable("a\x00b") == "a\ufffdb"
    True
    """
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def repaired(raw: bytes) -> bytes:
    r"""The same JSON with U+FFFD for what is not Unicode.

    >>> repaired(b'"\\ud83d\\ude00 \\ud83d \xff"').decode()
    '"\\ud83d\\ude00 \\ufffd \ufffd"'
    """
    text = raw.decode(errors="replace")
    if "\\u" in text:
        text = ESCAPE.sub(lambda found: "\\ufffd" if found["half"] else found[0], text)
    return text.encode()


MAX_DEPTH = 500


def is_too_deep(encoded: bytes, decoded: object) -> bool:
    """True if the JSON `encoded`, which decodes to `decoded`, has more than 500 levels.

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
    return (child for child in children if isinstance(child, dict | list))
