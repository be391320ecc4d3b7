"""A commit waits a bounded moment for appends on their way, and never on an idle outbox."""

from __future__ import annotations

import pytest

from service.outbox.sqlite.timings import CommitDelay, DelayPolicy

POLICY = DelayPolicy(share=2.0, least_appends=5, most_awaited=64, most_seconds=0.01)


class Room:
    """A delay with a clock."""

    def __init__(self, policy: DelayPolicy = POLICY) -> None:
        self.now = 100.0
        self.delay = CommitDelay(policy, lambda: self.now)

    def commits(self, appends: int, *, waiting: int = 0, took: float = 0.003) -> None:
        self.delay.begins()
        self.now += took
        self.delay.committed(appends, waiting=waiting)

    def waits(self, waiting: int = 0) -> float:
        """How long a commit should wait now."""
        return self.delay.seconds(waiting)


@pytest.fixture
def room() -> Room:
    return Room()


def test_the_first_commit_waits_for_nothing(room: Room) -> None:
    assert room.waits() == 0.0


def test_a_commit_waits_for_as_many_as_the_last_one_answered_and_as_came_meanwhile(
    room: Room,
) -> None:
    room.commits(10, waiting=4)
    assert room.waits(4) == pytest.approx(0.006)
    assert room.waits(13) == pytest.approx(0.006)
    assert room.waits(14) == 0.0


def test_after_few_appends_nothing_waits_however_many_came_meanwhile(room: Room) -> None:
    room.commits(4, waiting=50)
    assert room.waits(50) == room.waits(0) == 0.0
    room.commits(5)
    assert room.waits() > 0.0


@pytest.mark.parametrize(
    ("coming", "awaited"), [(15, 15), (16, 16), (17, 16), (33, 16), (34, 17), (64, 32)]
)
def test_of_many_half_are_waited_for(room: Room, coming: int, awaited: int) -> None:
    room.commits(10, waiting=coming - 10)
    assert room.waits(awaited - 1) > 0.0
    assert room.waits(awaited) == 0.0


def test_enough_appends_wait_for_no_more(room: Room) -> None:
    room.commits(100, waiting=100)
    assert room.waits(63) > 0.0
    assert room.waits(64) == 0.0


@pytest.mark.parametrize(("took", "waits"), [(0.001, 0.002), (0.005, 0.01), (3.0, 0.01)])
def test_the_wait_is_a_share_of_the_last_commits_time_and_bounded(
    room: Room, took: float, waits: float
) -> None:
    room.commits(10, took=took)
    assert room.waits() == pytest.approx(waits)


def test_the_wait_counts_from_the_end_of_the_last_commit(room: Room) -> None:
    room.commits(10)
    room.now += 0.004
    assert room.waits() == pytest.approx(0.002)
    room.now += 60
    assert room.waits() == 0.0


def test_half_a_tick_is_the_least_rest(room: Room) -> None:
    room.now = -0.00025
    room.commits(10, took=0.00025)
    assert room.now == 0.0
    assert room.waits() == 0.0005
    room.now = 0.00001
    assert room.waits() == 0.0


def test_by_default_nothing_waits() -> None:
    room = Room(DelayPolicy())
    room.commits(10)
    assert room.waits() == 0.0


def test_each_commit_says_anew_what_is_expected(room: Room) -> None:
    room.commits(10)
    room.commits(1)
    assert room.waits() == 0.0
