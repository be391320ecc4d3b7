"""Where a browser goes after a sign-in: a path of this service, never another site."""

from __future__ import annotations

import re

_MAX_CHARS = 1024
# Printable ASCII after one slash. Browsers read // and /\ as another host.
_OWN_PATH = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]*")


def own_path(text: str) -> str:
    """The path that `text` names; `/` when it is not a path of this service.

    >>> own_path("/outbox"), own_path("//elsewhere.example"), own_path("https://elsewhere.example")
    ('/outbox', '/', '/')
    """
    return text if len(text) <= _MAX_CHARS and _OWN_PATH.fullmatch(text) else "/"
