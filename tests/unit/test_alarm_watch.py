"""Alarms are raised once their conditions last; each change is told in its order until taken."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import structlog

from inngest_outbox.alarms import alarm_watch
from inngest_outbox.alarms.alarm_watch import AlarmWatch
from inngest_outbox.alarms.changes import MOST_NOTICES, AlarmChanges, AlarmState, Notice
from inngest_outbox.console.operations.alarm import Alarm, Severity
from inngest_outbox.console.operations.views import Movement, moved, stats_view
from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.figures import Stats
from inngest_outbox.outbox.model import DeliveryRecord, Filter
from inngest_outbox.runs.figures import KeptNames, NameView
from inngest_outbox.runs.turn import Turn, WatchPace
from tests.support.memory_outbox import HEALTHY_DELIVERY
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
    assert changes.look([], at + 2) == []
    [over] = changes.look([], at + 20_002)
    told = (over.alarm, over.state, over.severity, over.message, over.since, over.at)
    assert told == (key, "cleared", "warning", f"{key} told", T, at + 20_002)


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
    assert [one.state for one in changes.look([], T + 42_000)] == ["cleared"]
    assert changes.look([alarm("dead")], T + 43_000)[0].state == "raised"


def test_the_newest_changes_are_kept_to_be_told() -> None:
    changes = AlarmChanges(AlarmState(), 20_000)
    changes.look([alarm(f"a{number:03}") for number in range(MOST_NOTICES + 3)], T)
    assert [one.alarm for one in changes.state.untold][::99] == ["a003", "a102"]
    changes.look([], T)
    assert len(changes.look([], T + 20_000)) == MOST_NOTICES + 3  # all are over at once


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


class Handed:
    """A turn that is taken and lost at these times, one after another."""

    def __init__(self, *times: float) -> None:
        self._times = times

    async def mine(self) -> bool:
        return sum(now() >= one for one in self._times) % 2 == 1


class Counts:
    """A recorder that counts by outcome."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}

    def count(self, name: str, *, outcome: str) -> None:
        assert name == "alarms"
        self.seen[outcome] = self.seen.get(outcome, 0) + 1


class Own:
    """As many events of the service's own in each state as are given, None: the store is away."""

    def __init__(self, **own: int | None) -> None:
        self._own = own

    async def count(self, wanted: Filter) -> int:
        assert (wanted.owner, wanted.after_seq, wanted.limit) == ("outbox alarm", 0, 1_000)
        own = self._own.get(str(wanted.state), 0)
        if own is None:
            raise OutboxUnavailableError
        return own


def seen(**figures: Any) -> Movement:
    given = {"pending": 0, "delivering": 0, "delivered": 0, "dead": 0, **figures}
    ages = {"oldest_pending_seconds": None, "oldest_due_seconds": None}
    rest = {"delivery": HEALTHY_DELIVERY, "database_bytes": 0, "wal_bytes": None}
    stats = Stats(**{**ages, **rest, **given})
    return moved(None, stats_view(stats, serving=True), 0.0)


def watch(
    receiver: Receiver,
    counts: Counts,
    scopes: MemoryScopes,
    *,
    own: Own | None = None,
    turn: Turn | Handed | None = None,
    failure: str | None = None,
    names: KeptNames | None = None,
    latest: SimpleNamespace | None = None,
    **figures: Any,
) -> AlarmWatch:
    sampler = latest or SimpleNamespace(latest=seen(**figures))
    mine = turn or Turn(scopes, alone=True)
    parts: list[Any] = [receiver, sampler, own or Own(), scopes, mine, counts]
    known = names or KeptNames()
    return AlarmWatch(*parts, pace=WatchPace(), failure=lambda: failure, names=lambda: known)


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
    with structlog.testing.capture_logs() as lines:
        await watch_for(3_600, watch(receiver, counts, MemoryScopes(), dead=1, delivery=record))
    tries = [name for _, name, *_ in receiver.told]
    assert (tries[:10], tries[10]) == (["dead"] * 10, "misconfigured")
    assert receiver.times[:11] == [0, 5, 15, 45, 105, 405, 705, 1305, 1905, 2505, 2505]
    assert counts.seen["given_up"] == 1
    said = {"event": "alarm_not_told", "log_level": "warning", "alarm": "dead"}
    told = [one for one in lines if one["event"] == "alarm_not_told"][:10]
    assert told == [{**said, "reason": "HTTP 500", "tries": count} for count in range(1, 11)]


@in_virtual_time
async def test_alarms_are_told_and_end_in_their_time_though_the_clock_was_set_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    receiver, latest = Receiver(20), SimpleNamespace(latest=seen(dead=1))
    running = asyncio.create_task(
        watch_for(100, watch(receiver, Counts(), MemoryScopes(), latest=latest))
    )
    await asyncio.sleep(16)
    latest.latest = seen()
    await asyncio.sleep(6)
    monkeypatch.setattr(alarm_watch, "wall_now_ms", lambda: T - 3_600_000 + int(now() * 1000))
    await running
    told = [(at, state) for at, _, state, _ in receiver.told]
    assert told[:4] == [(0, "raised"), (5, "raised"), (15, "raised"), (25, "raised")]
    assert told[4:] == [(45, "cleared")]


LATE = {"pending": 2, "oldest_pending_seconds": 400.0, "oldest_due_seconds": 400.0}


@pytest.mark.parametrize(
    ("own", "figures", "alarms"),
    [
        ({"dead": 2}, {"dead": 2}, []),
        ({"dead": 1}, {"dead": 2}, ["dead"]),
        ({"dead": None}, {"dead": 2}, ["dead"]),
        ({"pending": 2}, LATE, []),
        ({"pending": 1}, LATE, ["late"]),
        ({"pending": 2}, {**LATE, "delivering": 1}, ["late"]),
        ({"pending": 2}, {**LATE, "sent": 1}, ["late"]),
        ({"pending": 2, "dead": 1}, {**LATE, "dead": 1}, []),
    ],
)
@in_virtual_time
async def test_the_service_s_own_events_raise_no_alarm(
    own: dict[str, int | None], figures: dict[str, Any], alarms: list[str]
) -> None:
    receiver = Receiver()
    await watch_for(30, watch(receiver, Counts(), MemoryScopes(), own=Own(**own), **figures))
    assert [name for _, name, *_ in receiver.told] == alarms


@in_virtual_time
async def test_delivery_that_is_down_is_told_with_the_events_of_others_that_wait() -> None:
    scopes, record = MemoryScopes(), DeliveryRecord("backing_off", "503", 1, 1, 0.0, 0)
    own = Own(pending=2)
    await watch_for(310, watch(Receiver(), Counts(), scopes, own=own, pending=5, delivery=record))
    [raised] = msgspec.convert(scopes.stored["watch", "alarms"], AlarmState).raised.values()
    assert raised.message == "3 wait and delivery is backing_off"


@in_virtual_time
async def test_a_store_that_takes_no_events_and_names_without_runs_are_told() -> None:
    missing = NameView(name="orders/placed", expected=True, no_run_since=T - 60_000)
    scopes, names = MemoryScopes(), KeptNames(T, (missing,))
    await watch_for(1, watch(Receiver(), Counts(), scopes, failure="disk full", names=names))
    kept = msgspec.convert(scopes.stored["watch", "alarms"], AlarmState)
    since = "2027-01-15 07:59:00 UTC"
    assert {name: (one.severity, one.message) for name, one in kept.raised.items()} == {
        "not_stored": ("critical", "events can't be stored: disk full"),
        "no_runs orders/placed": (
            "warning",
            f"orders/placed starts no run since {since} (see `outbox explain orders/placed`)",
        ),
    }


@in_virtual_time
async def test_of_two_processes_the_one_that_has_the_turn_tells_each_change_once() -> None:
    receiver, scopes = Receiver(), MemoryScopes()
    latest = SimpleNamespace(latest=seen(dead=1))
    turns = (Handed(0, 60, 120), Handed(60, 120))
    watches = [watch(receiver, Counts(), scopes, turn=one, latest=latest) for one in turns]
    running = asyncio.create_task(watch_for(300, *watches))
    await asyncio.sleep(62)
    latest.latest = seen()
    await running
    told = [(at, state) for at, _, state, _ in receiver.told]
    assert told == [(0, "raised"), (85, "cleared")]


NOT_KEPT = {"event": "alarms_not_kept", "log_level": "warning"} | {
    "reason": str(OutboxUnavailableError())
}


@in_virtual_time
async def test_alarms_are_told_while_the_store_is_away_and_before_the_first_sample() -> None:
    receiver, scopes, latest = Receiver(7), MemoryScopes(), SimpleNamespace(latest=None)
    scopes.stored["watch", "alarms"] = {"raised": 3}  # of another shape
    running = asyncio.create_task(watch_for(90, watch(receiver, Counts(), scopes, latest=latest)))
    await asyncio.sleep(1)
    scopes.is_away, latest.latest = True, seen(dead=1)
    with structlog.testing.capture_logs() as lines:
        await asyncio.sleep(5)
    latest.latest = None
    await running
    assert NOT_KEPT in lines
    assert [name for _, name, *_ in receiver.told] == ["dead", "dead"]


@in_virtual_time
async def test_a_change_is_kept_and_logged_before_it_is_told() -> None:
    class Hanging(Receiver):
        async def tell(self, notice: Notice) -> str | None:
            await super().tell(notice)
            await asyncio.Event().wait()
            return None

    hanging, receiver, scopes = Hanging(), Receiver(), MemoryScopes()
    with structlog.testing.capture_logs() as lines:
        for one in (hanging, receiver):
            await watch_for(10, watch(one, Counts(), scopes, dead=1))
    assert [one[1:] for one in hanging.told] == [one[1:] for one in receiver.told]
    message = "1 dead (see `outbox list --state dead`)"
    raised = {"alarm": "dead", "state": "raised", "message": message}
    assert lines == [{"event": "alarm", "log_level": "warning", **raised}]


@in_virtual_time
async def test_a_store_that_is_away_at_the_start_delays_alarms() -> None:
    receiver, scopes = Receiver(), MemoryScopes()
    scopes.is_away = True
    running = asyncio.create_task(watch_for(20, watch(receiver, Counts(), scopes, dead=1)))
    with structlog.testing.capture_logs() as lines:
        await asyncio.sleep(7)
    assert lines == [NOT_KEPT] * 2
    scopes.is_away = False
    await running
    assert receiver.times == [10]


@pytest.mark.parametrize(
    ("age", "severity"),
    [(300.0, None), (301.0, "warning"), (3_600.0, "warning"), (3_601.0, "critical")],
)
@in_virtual_time
async def test_a_row_is_late_after_five_minutes_and_critical_after_an_hour(
    age: float, severity: str | None
) -> None:
    scopes = MemoryScopes()
    late = {"oldest_pending_seconds": age, "oldest_due_seconds": age, "pending": 1}
    await watch_for(30, watch(Receiver(), Counts(), scopes, **late))
    kept = msgspec.convert(scopes.stored.get(("watch", "alarms"), {}), AlarmState)
    seen = {name: one.severity for name, one in kept.raised.items()}
    assert seen == ({"late": severity} if severity else {})
