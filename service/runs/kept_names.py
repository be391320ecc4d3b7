"""The names as the watch keeps them with the stored settings."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from service.identity.scopes import Scopes
from service.runs.figures import NameView
from service.runs.sampling import MAX_NAMES
from service.runs.turn import SCOPE

NAMES = "names"
_FRESH_MS = 900_000
_FORGET_MS = 7 * 86_400_000


class KeptNames(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The facts about each name at a moment, milliseconds since 1970."""

    at: int = 0
    names: tuple[NameView, ...] = ()

    def missing_runs(self, now_ms: int) -> list[NameView]:
        """The names that miss their runs; none where a service has not looked for long."""
        is_fresh = now_ms - self.at <= _FRESH_MS
        return [one for one in self.names if is_fresh and one.no_run_since is not None]


async def load_names(scopes: Scopes) -> KeptNames:
    """The names as they were last kept. Raises OutboxUnavailableError."""
    return names_of(await scopes.load_scope(SCOPE, NAMES))


def names_of(stored: object) -> KeptNames:
    """The names of a stored value, none where it is not such a value."""
    try:
        return msgspec.convert(stored or {}, KeptNames)
    except msgspec.ValidationError:
        return KeptNames()


def remembered(names: Sequence[NameView], now_ms: int) -> dict[str, NameView]:
    """The names that had a run lately or miss theirs, the last ones where they are many."""
    known = [
        one
        for one in names
        if one.no_run_since is not None or now_ms - (one.last_run_at or 0) < _FORGET_MS
    ]
    known.sort(key=lambda one: -(one.last_run_at or 0))
    return {one.name: one for one in known[:MAX_NAMES]}
