"""Why an outbox takes no events, and how often the disk and the lock are asked."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from service.errors import OutboxUnavailableError
from service.outbox.sqlite.damage import SENTENCE
from service.outbox.sqlite.health import SqliteHealth

SHORT = "The disk of the outbox is nearly full."


class Desk:
    """A writer, a disk, a lock and the damage, each well at first."""

    def __init__(self) -> None:
        self.now, self.short, self.lock_fault = 0.0, False, None
        self.disk_asked = self.lock_asked = 0
        self.watchdog = SimpleNamespace(failure=None)
        self.writer = SimpleNamespace(alive=True, watchdog=self.watchdog)
        self.damage = SimpleNamespace(is_found=False)
        self.health = SqliteHealth(
            self.writer,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            self.damage,  # type: ignore[arg-type]
            lambda: self.now,
        )

    def is_short(self) -> bool:
        self.disk_asked += 1
        return self.short

    @property
    def fault(self) -> str | None:
        self.lock_asked += 1
        return self.lock_fault

    def refusal(self) -> str | None:
        """What a request is told."""
        try:
            self.health.refuse_if_failing()
        except OutboxUnavailableError as error:
            return str(error)
        return None


def test_an_outbox_that_is_well_takes_events() -> None:
    desk = Desk()
    assert desk.health.failure is None
    assert desk.refusal() is None


def test_a_writer_that_has_ended_is_a_failure() -> None:
    desk = Desk()
    desk.writer.alive = False
    assert desk.health.failure == "The outbox's writer has ended."


def test_the_gravest_cause_is_told_first() -> None:
    desk = Desk()
    desk.short, told = True, []
    for change in ("", "lock", "damage", "watchdog"):
        if change == "lock":
            desk.lock_fault = "replaced"  # type: ignore[assignment]
            desk.now += 1
        desk.damage.is_found |= change == "damage"
        if change == "watchdog":
            desk.watchdog.failure = OutboxUnavailableError("no disk")
        told.append((desk.health.failure, desk.refusal()))
    assert told == [(one, one) for one in (SHORT, "replaced", SENTENCE, "no disk")]


def test_a_request_asks_the_disk_once_in_50_ms() -> None:
    desk = Desk()
    asked = []
    for ms in (0, 1, 49, 50, 51, 99, 100):
        desk.now = ms / 1000
        assert desk.refusal() is None
        asked.append(desk.disk_asked)
    assert asked == [1, 1, 1, 2, 2, 2, 3]


def test_a_disk_that_was_short_is_asked_at_each_request() -> None:
    desk = Desk()
    desk.short = True
    assert [desk.refusal() for _ in range(3)] == [SHORT] * 3
    assert desk.disk_asked == 3
    desk.now, desk.short = 0.5, False
    assert desk.refusal() is None
    desk.short = True
    assert desk.refusal() is None


@pytest.mark.parametrize("cause", ["watchdog", "damage"])
def test_a_failure_of_the_writer_and_damage_are_told_at_once(cause: str) -> None:
    desk = Desk()
    assert desk.refusal() is None
    if cause == "damage":
        desk.damage.is_found = True
        assert desk.refusal() == SENTENCE
    else:
        desk.watchdog.failure = OutboxUnavailableError("no disk")
        assert desk.refusal() == "no disk"


def test_the_lock_is_asked_once_a_second_until_it_is_lost_for_good() -> None:
    desk = Desk()
    asked = []
    for now in (0, 0.5, 0.9, 1.0, 1.9, 2.0):
        desk.now = now
        assert desk.health.failure is None
        asked.append(desk.lock_asked)
    assert asked == [1, 1, 1, 2, 2, 3]
    desk.now, desk.lock_fault = 3.0, "replaced"  # type: ignore[assignment]
    assert desk.health.failure == "replaced"
    desk.now, desk.lock_fault = 9.0, None
    assert desk.health.failure == "replaced"
    assert desk.lock_asked == 4
