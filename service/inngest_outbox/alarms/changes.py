"""The alarms that were raised and those that are over: changes alone, each once. Pure.

An alarm is raised after its condition has lasted, and over after it has been absent for a moment.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from inngest_outbox.console.operations.alarm import Alarm

_LASTS_MS = {
    "backing_off": 300_000,
    "recovering": 300_000,
    "paused": 1_800_000,
    "misconfigured": 30_000,
    "not_confirmed": 300_000,
}
MOST_NOTICES = 100


class Notice(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """One change to tell. `id` is the same in every try. Times are milliseconds since 1970."""

    id: str
    alarm: str
    state: str
    severity: str
    message: str
    since: int
    at: int
    tries: int = 0
    next_try_at: int = 0


class AlarmState(msgspec.Struct, rename="camel"):
    """The alarms that are raised, as they were told, and the changes that are not told yet."""

    raised: dict[str, Notice] = {}
    untold: list[Notice] = []


class AlarmChanges:
    """Takes the conditions again and again. `state` is what to keep.

    An alarm is over after `over_ms` without its condition.
    """

    def __init__(self, state: AlarmState, over_ms: float) -> None:
        self.state, self._over_ms = state, over_ms
        self._began: dict[str, int] = {}
        self._absent: dict[str, int] = {}

    def look(self, found: Iterable[Alarm], now_ms: int) -> list[Notice]:
        """Take the conditions of this moment; returns the changes, which wait to be told too."""
        alarms = {alarm.key: alarm for alarm in found}
        self._began = _since(self._began, alarms, now_ms)
        changes = [*self._raised(alarms.values(), now_ms), *self._cleared(alarms, now_ms)]
        self.state.untold = [*self.state.untold, *changes][-MOST_NOTICES:]
        return changes

    def _raised(self, alarms: Iterable[Alarm], now_ms: int) -> Iterator[Notice]:
        for alarm in alarms:
            since = self._began[alarm.key]
            lasts = _LASTS_MS.get(alarm.key, 0)
            if alarm.key not in self.state.raised and now_ms - since >= lasts:
                severity = alarm.severity.name.lower()
                notice = _notice(alarm.key, "raised", severity, alarm.told, since, now_ms)
                self.state.raised[alarm.key] = notice
                yield notice

    def _cleared(self, alarms: dict[str, Alarm], now_ms: int) -> Iterator[Notice]:
        gone = self.state.raised.keys() - alarms.keys()
        self._absent = _since(self._absent, gone, now_ms)
        for key, since in self._absent.items():
            if now_ms - since >= self._over_ms:
                raised = self.state.raised.pop(key)
                yield _notice(key, "cleared", raised.severity, raised.message, raised.since, now_ms)


def _since(known: Mapping[str, int], keys: Iterable[str], now_ms: int) -> dict[str, int]:
    """Since when each key is so: now at the latest, though the clock was set back."""
    return {key: min(known.get(key, now_ms), now_ms) for key in keys}


def _notice(alarm: str, state: str, severity: str, message: str, since: int, at: int) -> Notice:
    return Notice(f"alarm_{uuid.uuid4().hex}", alarm, state, severity, message, since, at)
