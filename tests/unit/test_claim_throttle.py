"""Claims leave time for posts and keep up with them; a commit waits a bounded moment."""

from __future__ import annotations

import pytest

from inngest_outbox.bootstrap.store_part import timings_beside_fronts
from inngest_outbox.outbox.sqlite.timings import ClaimPace, ClaimThrottle, CommitDelay, DelayPolicy

BATCH = 500
STEP_SECONDS = 0.001
PACE = ClaimPace()


class Process:
    """A process with a clock; `arriving` events and `busy` seconds of work come in a second."""

    def __init__(self, arriving: float, busy: float = 0.0, pace: ClaimPace = PACE) -> None:
        self.arriving, self.busy = arriving, busy
        self.now, self.came, self.used = 0.0, 0.0, 0.0
        self.throttle = ClaimThrottle(
            pace, lambda: round(self.came), clock=lambda: self.now, used=lambda: self.used
        )

    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.came += seconds * self.arriving
        self.used += seconds * self.busy

    def space(self) -> float:
        """The time from a claim to the next one, of a backlog."""
        self.throttle.claims()
        self.passes(STEP_SECONDS)
        pause = self.throttle.pause_seconds(BATCH)
        self.throttle.claimed(full=True)
        self.passes(pause)
        return STEP_SECONDS + pause

    def drained(self, *, seconds: float = 1.0, full: bool = True) -> int:
        """How many events full claims take in these seconds."""
        until, drained = self.now + seconds, 0
        while self.now < until:
            self.passes(STEP_SECONDS)  # a claim takes a moment
            self.passes(self.throttle.pause_seconds(BATCH))
            self.throttle.claims()
            self.throttle.claimed(full=full)
            drained += BATCH
        return drained


def test_few_posts_slow_no_claim_down() -> None:
    assert Process(PACE.busy_appends_per_second / 4, busy=1.0).drained() > 400_000


def test_posts_that_take_the_whole_core_slow_a_drain_down_to_little_more_than_they_bring() -> None:
    process = Process(9_000, busy=0.95)
    process.drained()
    assert process.drained() == pytest.approx(1.25 * 9_000, rel=0.1)


def test_a_drain_that_is_slowed_down_still_has_its_least_pace() -> None:
    process = Process(2_100, busy=1.0)
    process.drained()
    least = BATCH / PACE.longest_seconds
    assert least * 0.9 < process.drained(seconds=10.0) / 10 < least * 1.1


def test_the_space_grows_and_shrinks_in_steps() -> None:
    process = Process(3_000, busy=1.0)
    process.space()
    grown = [process.space() for _ in range(4)]
    assert grown == pytest.approx([0.02, 0.025, 0.03125, 0.0390625])
    process.busy = 0.5
    process.space()
    assert [process.space() for _ in range(2)] == pytest.approx([0.0390625, 0.03125])


def test_a_longer_pause_of_a_stream_is_not_one_of_a_backlog() -> None:
    process = Process(9_000, pace=ClaimPace(stream_pause_seconds=0.04))
    process.drained(full=False)
    assert process.drained(full=False) / BATCH == pytest.approx(1 / 0.04, rel=0.1)
    process.drained()
    assert process.drained() == pytest.approx(BATCH / PACE.pause_seconds, rel=0.1)


@pytest.mark.parametrize("beside_fronts", [False, True])
@pytest.mark.parametrize("arriving", [10_000, 40_000, 80_000])
@pytest.mark.parametrize("busy", [0.0, 1.0])
def test_claims_keep_up_with_arrays_of_events(
    arriving: float, busy: float, *, beside_fronts: bool
) -> None:
    pace = timings_beside_fronts(2, cores=4).pace if beside_fronts else PACE
    process = Process(arriving, busy, pace)
    process.drained()
    assert process.drained() > arriving


def test_claims_of_a_stream_from_fronts_are_fewer_and_larger() -> None:
    process = Process(5_000, pace=timings_beside_fronts(2).pace)
    process.drained(full=False)
    assert process.drained(full=False) / BATCH == pytest.approx(1 / 0.05, rel=0.1)


def test_where_cores_are_fewer_than_processes_a_drain_leaves_the_fronts_their_part() -> None:
    paces = [timings_beside_fronts(3, cores).pace for cores in (2, 4, 8)]
    shares = [pace.processor_share / PACE.processor_share for pace in paces]
    assert shares == pytest.approx([0.5, 1, 1])


@pytest.mark.parametrize(
    ("since", "came", "pause"),
    [
        (0.0, 0, 0.0),
        (0.001, 0, 0.0),
        (0.001, 1, 0.0),
        (0.001, 2, 0.019),
        (0.010004, 20, 0.0),
        (0.001, 100, 0.003),
        (0.0, 5, 0.0),
        (0.03, 1000, 0.0),
    ],
)
def test_a_pause_is_as_long_as_it_takes_to_keep_up(since: float, came: int, pause: float) -> None:
    """The share of a claim of 500 that the posts since the last one make, and a quarter more."""
    process = Process(0)
    for _ in range(2):
        process.now += since
        process.came += came
        assert process.throttle.pause_seconds(BATCH) == pytest.approx(pause)
        process.throttle.claims()


POLICY = timings_beside_fronts(2).delay


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
