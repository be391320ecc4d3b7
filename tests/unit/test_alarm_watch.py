"""Alarms are raised once their conditions last; each change is told in its order until taken."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from service.alarms import alarm_watch
from service.alarms.alarm_watch import AlarmWatch
from service.alarms.changes import MOST_NOTICES, AlarmChanges, AlarmState, Notice
from service.console.operations.alarm import Alarm, Severity
from service.console.operations.views import moved, stats_view
from service.outbox.figures import Stats
from service.outbox.model import DeliveryRecord
from service.runs.figures import KeptNames
from service.runs.turn import Turn, WatchPace
from tests.support.memory_scopes import MemoryScopes
from tests.support.virtual_time import in_virtual_time, now

T = 1_800_000_000_000


def alarm(key: str) -> Alarm:
    return Alarm(Severity.WARNING, key, f"{key} words", f"{key} told")


@pytest.mark.parametrize(
    ("key", "lasts_seconds"),
    [
        ("dead", 0),
        ("misconfigured", 30),
        ("backing_off", 300),
        ("recovering", 300),
        ("not_confirmed", 300),
        ("paused", 1800),
    ],
)
def test_an_alarm_is_raised_once_after_its_condition_has_lasted(
    key: str, lasts_seconds: int
) -> None:
    changes, at = AlarmChanges(AlarmState(), 20_000), T
    if lasts_seconds:
        assert changes.look([alarm(key)], T) == []
        at = T + lasts_seconds * 1000
        assert changes.look([alarm(key)], at - 1) == []
    [raised] = changes.look([alarm(key)], at)
    assert (raised.state, raised.severity, raised.message) == ("raised", "warning", f"{key} told")
    assert (raised.since, raised.at) == (T, at)
    assert changes.look([alarm(key)], at + 1) == []


def test_a_condition_that_was_away_for_a_look_lasts_anew() -> None:
    changes = AlarmChanges(AlarmState(), 20_000)
    for at, found in ((0, True), (20_000, False), (25_000, True), (50_000, True)):
        assert changes.look([alarm("misconfigured")] if found else [], T + at) == []
    assert len(changes.look([alarm("misconfigured")], T + 55_000)) == 1


def test_an_alarm_is_over_after_its_condition_was_absent_for_a_moment() -> None:
    changes = AlarmChanges(AlarmState(), 20_000)
    changes.look([alarm("dead")], T)
    changes.look([], T + 1_000)
    assert changes.look([alarm("dead")], T + 20_000) == []
    assert changes.look([], T + 22_000) == []
    assert changes.look([], T + 41_999) == []
    [over] = changes.look([], T + 42_000)
    assert (over.alarm, over.state, over.message) == ("dead", "cleared", "dead told")
    assert (over.since, over.at) == (T, T + 42_000)
    assert changes.look([alarm("dead")], T + 43_000)[0].state == "raised"


def test_the_newest_changes_are_kept_to_be_told() -> None:
    changes = AlarmChanges(AlarmState(), 20_000)
    changes.look([alarm(f"a{number:03}") for number in range(MOST_NOTICES + 3)], T)
    assert [one.alarm for one in changes.state.untold][::99] == ["a003", "a102"]


class Receiver:
    """Takes no alarm before `opens_at` of the loop's clock; `told` has each try."""

    def __init__(self, opens_at: float = 0.0) -> None:
        self.told: list[tuple[int, str, str, str]] = []
        self._opens_at = opens_at

    async def tell(self, notice: Notice) -> str | None:
        self.told.append((int(now()), notice.alarm, notice.state, notice.id))
        return None if now() >= self._opens_at else "HTTP 500"

    @property
    def times(self) -> list[int]:
        """The seconds of the tries."""
        return [at for at, *_ in self.told]


class Counts:
    """A recorder that counts by outcome."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}

    def count(self, name: str, *, outcome: str) -> None:
        assert name == "alarms"
        self.seen[outcome] = self.seen.get(outcome, 0) + 1


class Nothing:
    """No event of the service's own, or as many as are given."""

    def __init__(self, own: int = 0) -> None:
        self._own = own

    async def count(self, wanted: object) -> int:
        del wanted
        return self._own


def watch(
    receiver: Receiver,
    counts: Counts,
    scopes: MemoryScopes,
    *,
    own: int = 0,
    **figures: Any,
) -> AlarmWatch:
    given = {"pending": 0, "delivering": 0, "delivered": 0, "dead": 0, **figures}
    rest = {"oldest_pending_seconds": None, "oldest_due_seconds": None, "delivery": None}
    stats = Stats(**{**rest, "database_bytes": None, "wal_bytes": None, **given})
    seen = SimpleNamespace(latest=moved(None, stats_view(stats, serving=True), 0.0))
    parts: list[Any] = [receiver, seen, Nothing(own), scopes, Turn(scopes, alone=True), counts]
    return AlarmWatch(*parts, pace=WatchPace(), failure=lambda: None, names=KeptNames)


async def watch_for(seconds: float, *watches: AlarmWatch) -> None:
    running = [asyncio.create_task(one.run()) for one in watches]
    await asyncio.sleep(seconds)
    for one in running:
        one.cancel()


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarm_watch, "wall_now_ms", lambda: T + int(now() * 1000))


@in_virtual_time
async def test_a_change_that_is_not_taken_is_told_again_later_under_its_id() -> None:
    receiver, counts, scopes = Receiver(100), Counts(), MemoryScopes()
    one = watch(receiver, counts, scopes, dead=1)
    await watch_for(40, one)
    assert receiver.times == [0, 5, 15]  # after 2, 10 and 30 s, at the next look
    await watch_for(100, watch(receiver, counts, scopes, dead=1))
    assert receiver.times == [0, 5, 15, 45, 105]
    assert len({one_id for *_, one_id in receiver.told}) == 1
    assert counts.seen == {"failed": 4, "told": 1}


@in_virtual_time
async def test_changes_are_told_in_their_order_and_one_is_given_up_after_ten_tries() -> None:
    receiver, counts = Receiver(1e9), Counts()
    record = DeliveryRecord("misconfigured", "401", 1, 1, 0.0, 0)
    await watch_for(3_600, watch(receiver, counts, MemoryScopes(), dead=1, delivery=record))
    tries = [name for _, name, *_ in receiver.told]
    assert (tries[:10], tries[10]) == (["dead"] * 10, "misconfigured")
    assert counts.seen["given_up"] == 1


@pytest.mark.parametrize(("own", "alarms"), [(2, []), (1, ["dead"])])
@in_virtual_time
async def test_the_service_s_own_events_raise_no_alarm(own: int, alarms: list[str]) -> None:
    receiver = Receiver()
    await watch_for(30, watch(receiver, Counts(), MemoryScopes(), own=own, dead=2))
    assert [name for _, name, *_ in receiver.told] == alarms


@pytest.mark.parametrize(("age", "severity"), [(3_000.0, "warning"), (4_000.0, "critical")])
@in_virtual_time
async def test_a_late_row_is_critical_after_an_hour(age: float, severity: str) -> None:
    scopes = MemoryScopes()
    late = {"oldest_pending_seconds": age, "oldest_due_seconds": age, "pending": 1}
    await watch_for(30, watch(Receiver(), Counts(), scopes, **late))
    kept = msgspec.convert(scopes.stored["watch", "alarms"], AlarmState)
    assert {name: one.severity for name, one in kept.raised.items()} == {"late": severity}
