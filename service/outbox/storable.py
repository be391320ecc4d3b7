"""Text that every store can store."""

from __future__ import annotations


def storable(text: str) -> str:
    r"""The text without what PostgreSQL can't store: NUL characters and lone surrogates.

    >>> storable("a\x00b") == "a\ufffdb"
    True
    """
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
