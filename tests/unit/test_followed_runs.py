"""How often Inngest and the store are asked about followed events, on a clock of its own."""

from __future__ import annotations

import asyncio
import math
import weakref
from collections.abc import Sequence

import msgspec
import pytest
from structlog.testing import capture_logs

from inngest_outbox.errors import InngestApiError, OutboxUnavailableError
from inngest_outbox.inngest.runs import EventRun, Run, RunStatus
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.outbox.event import Meta
from inngest_outbox.outbox.model import Filter, Row, State
from inngest_outbox.web.events import run_asker
from inngest_outbox.web.events.event_view import EventView
from inngest_outbox.web.events.followed_event import FollowedEvent, FollowPolicy, with_stacks
from inngest_outbox.web.events.follower import EventFollower
from inngest_outbox.web.events.run_asker import RunAsker
from tests.support.followed_events import run
from tests.support.virtual_time import in_virtual_time, now
from tests.unit.test_name_runs import T, row

POLICY = FollowPolicy()
LONG_AGO = 1_700_000_000_000


class SlowInngest:
    """It answers after `seconds` that an event has no run."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.asked = self.used = 0
        self.at_once = self.most_at_once = 0
        self.thorough: list[bool] = []
        self.of: set[str] = set()

    async def run_ids(
        self, ulid: str, environment: str | None = None, *, thorough: bool = False
    ) -> Sequence[str]:
        self.asked += 1
        self.thorough.append(thorough)
        self.of.add(ulid)
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        await asyncio.sleep(self.seconds)
        self.at_once -= 1
        return ()

    async def run(self, run_id: str, environment: str | None = None) -> EventRun | None:
        raise AssertionError(run_id)

    async def used_before(self, *event: str | None) -> str:
        assert event == ("01ULID", "mine", "a", "branch")
        self.used += 1
        return "another event"


async def ask_for_a_minute(inngest: SlowInngest, events: int) -> None:
    asker = RunAsker(inngest, lambda *_: None, POLICY)
    rows = (row("a", number, LONG_AGO) for number in range(events))
    followed = [FollowedEvent(one, POLICY, runs_follow=True) for one in rows]
    for _ in range(600):
        await asker.ask_some(followed)
        await asyncio.sleep(0.1)
    before = now()
    await asker.stop()
    assert now() == before  # no answer is waited for


@in_virtual_time
async def test_a_slow_inngest_is_asked_less_often() -> None:
    quick, slow, slowest = SlowInngest(0.01), SlowInngest(1.0), SlowInngest(4.0)
    for one in (quick, slow, slowest):
        await ask_for_a_minute(one, 1)
    assert 70 <= quick.asked <= 76
    assert quick.thorough[:21] == [True, *[False] * 9, True, *[False] * 9, True]
    assert 18 <= slow.asked <= 22
    assert slowest.asked == 7  # it rests for 5 s at most


@in_virtual_time
async def test_questions_side_by_side_are_bounded() -> None:
    inngest = SlowInngest(1.0)
    await ask_for_a_minute(inngest, 50)
    assert inngest.most_at_once == 8
    assert len(inngest.of) == 50  # the longest waiting comes first


def test_an_event_for_later_is_held_from_its_own_time_on() -> None:
    one = row("a", 0, T)
    later = msgspec.structs.replace(one, meta=msgspec.structs.replace(one.meta, ts_ms=T + 60_000))
    followed = FollowedEvent(later, POLICY, runs_follow=True)
    assert followed.held_seconds(T + 61_000) == 1


def test_an_event_that_waited_for_long_has_not_yet_been_held_for_long() -> None:
    waited = msgspec.structs.replace(row("a", 0, LONG_AGO), state=State.SENT, settled_at_ms=None)
    followed = FollowedEvent(waited, POLICY, runs_follow=True)
    for state, settled_at_ms in ((State.SENT, None), (State.DELIVERED, wall_now_ms())):
        changed = msgspec.structs.replace(waited, state=state, settled_at_ms=settled_at_ms)
        followed.show_row(changed)
        followed.show_runs([], now=0, wall_ms=wall_now_ms())
        assert followed.snapshot
        view = msgspec.json.decode(followed.snapshot.body)
        assert (view["noRun"], view["final"]) == (False, False)


@pytest.mark.parametrize("state", [State.PENDING, State.DELIVERED])
def test_an_event_that_is_sent_again_has_not_yet_been_held_for_long(state: State) -> None:
    delivered = row("a", 0, LONG_AGO)
    followed = FollowedEvent(delivered, POLICY, runs_follow=True)
    followed.show_runs([], now=0, wall_ms=T)
    settled_at_ms = wall_now_ms() if state is State.DELIVERED else None
    followed.show_row(msgspec.structs.replace(delivered, state=state, settled_at_ms=settled_at_ms))
    assert followed.snapshot
    view = msgspec.json.decode(followed.snapshot.body)
    assert (view["noRun"], view["final"]) == (False, False)


async def test_an_event_that_was_answered_may_have_runs_and_ends_with_its_delivery() -> None:
    delivered = row("a", 0, LONG_AGO)
    answered = msgspec.structs.replace(delivered, state=State.SENT)
    followed = FollowedEvent(answered, POLICY, runs_follow=True)
    followed.id_used = True
    assert followed.snapshot
    assert with_stacks(followed.snapshot.body, {"r-1": "at /srv"}) == followed.snapshot.body
    for state, is_known in (
        *((state, (True, True)) for state in (State.PENDING, State.DELIVERING, State.DEAD)),
        *((state, (True, False)) for state in (State.SENT, State.DELIVERED)),
    ):
        other = msgspec.structs.replace(delivered, state=state)
        found = (FollowedEvent(other, POLICY, runs_follow=one) for one in (False, True))
        assert tuple(one.is_known for one in found) == is_known
    waiting = asyncio.create_task(followed.change(math.inf, Client()))
    await asyncio.sleep(0)
    followed.show_runs([], now=0, wall_ms=LONG_AGO + 299_999)
    assert followed.is_known
    await asyncio.sleep(0)
    assert waiting.done()  # that there are no runs is told at once
    followed.show_runs([], now=0, wall_ms=LONG_AGO + 300_000)
    followed.show_row(delivered)
    view = msgspec.json.decode(followed.snapshot.body)
    assert [view[one] for one in ("noRun", "idUsed", "final")] == [True] * 3
    followed.show_runs([RUNNING], now=0, wall_ms=T)  # to who asks again
    view = msgspec.json.decode(followed.snapshot.body)
    assert (view["run"]["status"], view["noRun"], view["final"]) == ("running", False, False)
    followed.show_row(msgspec.structs.replace(delivered, state=State.DEAD))
    assert followed.snapshot.final
    followed.vanish()
    followed.show_runs([], now=0, wall_ms=T)  # an answer that comes too late
    assert not followed.is_moving
    followed.show_row(delivered)  # as a request read it just before
    assert followed.snapshot


RUNNING = Run("r-1", "f", RunStatus.RUNNING, LONG_AGO, None, None)
ENDED = msgspec.structs.replace(RUNNING, status=RunStatus.COMPLETED, ended_at=LONG_AGO)
WHOLE = msgspec.structs.replace(ENDED, output={"pages": 1})
CANCELLED = msgspec.structs.replace(ENDED, status=RunStatus.CANCELLED)


@pytest.mark.parametrize(
    ("runs", "told"),  # after 4.999 s, 5 s, 299.999 s and 300 s: F for final, N without a run
    [
        ([], "...N"),
        ([RUNNING], "...."),
        ([ENDED], "...."),  # its output may come yet
        ([WHOLE], ".FFF"),
        ([CANCELLED], ".FFF"),
        ([WHOLE, WHOLE], ".FFF"),
        ([CANCELLED, WHOLE], ".FFF"),
        ([WHOLE, RUNNING], "...."),
        ([RUNNING, WHOLE], "...."),
        ([WHOLE, ENDED, WHOLE], "...."),
    ],
)
@pytest.mark.parametrize("id_used", [False, True])
def test_how_an_event_is_shown_with_its_runs(
    runs: Sequence[Run], told: str, *, id_used: bool
) -> None:
    for state, expected in (
        (State.DELIVERED, told),
        (State.SENT, told.replace("F", ".").lower()),  # it is not final
        (State.DEAD, told.replace(".", "F")),
    ):
        found = ""
        for held_ms in (4_999, 5_000, 299_999, 300_000):
            one = msgspec.structs.replace(row("a", 0, LONG_AGO), state=state)
            followed = FollowedEvent(one, POLICY, runs_follow=True)
            followed.id_used = id_used
            followed.show_runs(runs, now=0, wall_ms=LONG_AGO + held_ms)
            assert followed.snapshot
            view = msgspec.json.decode(followed.snapshot.body, type=EventView)
            assert (view.runs, followed.snapshot.final) == (tuple(runs), view.final)
            assert view.id_used is (view.no_run and id_used)
            followed.show_row(one)  # which is as it was
            assert followed.snapshot.body == msgspec.json.encode(view)
            letters = "Nn" if view.no_run else "F."
            found += letters[0] if view.final else letters[1]
        assert found == expected


def test_the_output_of_each_run_may_come_a_moment_after_its_end() -> None:
    followed = FollowedEvent(row("a", 0, LONG_AGO), POLICY, runs_follow=True)
    finals = []
    for seconds, runs in (
        (1, [ENDED]),
        (2, [ENDED, RUNNING]),
        (5, [ENDED] * 2),
        (7.9, [ENDED] * 2),
        (8, [ENDED] * 2),
    ):
        followed.show_runs(runs, now=seconds, wall_ms=T)
        finals.append(followed.snapshot and followed.snapshot.final)
    assert finals == [False, False, False, False, True]


class Client:
    transport: object | None = True


class Gone(Client):
    transport = None


@pytest.mark.parametrize(
    ("until", "client", "is_woken"),
    [
        (math.inf, Client, False),
        (1.1, Client, False),
        (1.0, Client, True),
        (math.inf, Gone, True),
        (1.0, Gone, True),
    ],
)
async def test_who_waited_long_enough_or_has_gone_is_woken(
    until: float, client: type[Client], *, is_woken: bool
) -> None:
    followed = FollowedEvent(row("a", 0, LONG_AGO), POLICY, runs_follow=True)
    waiting = asyncio.create_task(followed.change(until, client()))
    await asyncio.sleep(0)
    for _ in range(2):  # the second time before it runs
        followed.wake(1.0)
    await asyncio.sleep(0)
    assert waiting.done() is is_woken
    followed.vanish()  # wakes all
    await asyncio.sleep(0)
    assert waiting.done()


def test_stacks_stand_with_the_errors_of_their_runs() -> None:
    error = {"name": "E", "message": "no"}
    runs = [msgspec.structs.replace(ENDED, id=f"r-{at}", output=error) for at in range(3)]
    runs[2] = msgspec.structs.replace(runs[2], output=None)
    followed = FollowedEvent(row("a", 0, LONG_AGO), POLICY, runs_follow=True)
    followed.show_runs(runs, now=0, wall_ms=T)
    assert followed.snapshot
    body = with_stacks(followed.snapshot.body, {"r-1": "at /srv", "r-2": "at /srv"})
    shown = [one.output for one in msgspec.json.decode(body, type=EventView).runs]
    assert shown == [error, {**error, "stack": "at /srv"}, None]


async def test_who_waits_is_woken_by_a_change_and_let_go() -> None:
    followed = FollowedEvent(row("a", 0, LONG_AGO), POLICY, runs_follow=True)
    client = Client()
    held, waiting = weakref.ref(client), asyncio.create_task(followed.change(math.inf, client))
    del client
    await asyncio.sleep(0)
    followed.show_row(row("a", 0, LONG_AGO))
    followed.show_runs([WHOLE], now=0, wall_ms=T)
    await waiting
    del waiting
    assert held() is None


@in_virtual_time
async def test_a_first_question_that_took_too_long_is_asked_again() -> None:
    inngest = SlowInngest(2.0)
    asker = RunAsker(inngest, lambda *_: None, POLICY)
    followed = FollowedEvent(row("a", 0, LONG_AGO), POLICY, runs_follow=True)
    began = now()
    await asyncio.gather(*(asker.ask_soon(followed) for _ in range(3)))  # the others wait for none
    await asker.ask_soon(FollowedEvent(row("a", 1, LONG_AGO), POLICY, runs_follow=True))
    assert (now(), inngest.asked) == (began + 1, 1)  # nobody else waits for it now
    await asker.ask_some([followed])
    await asyncio.sleep(0)
    assert inngest.asked == 2
    await asyncio.sleep(10)
    await asker.ask_some([followed])
    await asker.ask_soon(followed)  # which is being done
    await asyncio.sleep(0)
    assert inngest.asked == 3
    await asker.stop()


class Failing(SlowInngest):
    async def run_ids(self, *event: str | None, thorough: bool = False) -> Sequence[str]:
        await super().run_ids(*event, thorough=thorough)  # type: ignore[arg-type]
        raise InngestApiError("down")


@in_virtual_time
async def test_after_a_failure_no_first_answer_waits_for_inngest_for_two_seconds() -> None:
    inngest = Failing(0.01)
    asker = RunAsker(inngest, lambda *_: None, POLICY)
    asked, other = (
        FollowedEvent(row("a", number, LONG_AGO), POLICY, runs_follow=True) for number in (0, 1)
    )
    with capture_logs() as logs:
        for one in (asked, other):
            await asker.ask_soon(one)
    assert logs == [{"event": "runs_not_asked", "log_level": "debug", "reason": "down"}]
    await asyncio.sleep(1.9)
    await asker.ask_some([asked])
    await asker.ask_soon(other)
    await asyncio.sleep(0)
    assert inngest.asked == 1
    await asyncio.sleep(0.1)
    await asker.ask_soon(other)
    assert inngest.asked == 2
    pending = msgspec.structs.replace(row("a", 2, LONG_AGO), state=State.PENDING)
    await asyncio.sleep(2)
    await asker.ask_soon(FollowedEvent(pending, POLICY, runs_follow=True))
    assert inngest.asked == 2  # Inngest does not have it yet


@in_virtual_time
async def test_a_stop_ends_the_questions_under_way() -> None:
    inngest, store = SlowInngest(0.01), Store()
    follower = EventFollower(store, RunAsker(inngest, lambda *_: None, POLICY), POLICY)
    follower.end(follower.begin(row("left", 0, LONG_AGO), "ada"), "ada")
    for number in range(16):
        follower.begin(row("a", number, LONG_AGO), "ada")
    tasks = [asyncio.create_task(one()) for one in (follower.ask, follower.look)]
    await asyncio.sleep(0.05)
    inngest.seconds = 60
    await asyncio.sleep(0.1)
    assert inngest.of == {f"a-{number}" for number in range(16)}
    assert inngest.at_once == 8  # in each tenth of a second
    assert store.reads == []  # the row of a delivered event changes no more
    for one in tasks:
        one.cancel()
    await asyncio.wait(tasks)
    assert "ask-for-runs" not in {task.get_name() for task in asyncio.all_tasks()}


class Running(SlowInngest):
    """Each event has a run, `told`, which goes on. The search of the number `fault` fails."""

    told: EventRun | None = EventRun("r-1", "RUNNING")
    fault = 0

    async def run_ids(self, *event: str | None, thorough: bool = False) -> Sequence[str]:
        await super().run_ids(*event, thorough=thorough)  # type: ignore[arg-type]
        if self.asked == self.fault:
            raise InngestApiError
        return ("r-0", "r-1")

    async def run(self, run_id: str, environment: str | None = None) -> EventRun | None:
        return self.told if run_id == "r-1" else None  # of the other it knows only the id


class FailingOnce(Running):
    fault = 2


@in_virtual_time
async def test_an_output_that_comes_after_the_end_of_its_run_is_asked_for() -> None:
    inngest, outputs = Running(0.01), list[object]()
    asker = RunAsker(inngest, lambda *_: None, POLICY)
    followed = FollowedEvent(row("a", 0, LONG_AGO), POLICY, runs_follow=True)
    ended = [run("COMPLETED", output, "r-1") for output in (None, {"pages": 1}, None)]
    for inngest.told in (None, *ended):  # at first Inngest knows nothing but the ids
        await asker.ask_soon(followed)
        await asyncio.sleep(1)
        assert followed.snapshot
        [one] = msgspec.json.decode(followed.snapshot.body)["otherRuns"]
        outputs.append(one["output"])
    assert outputs == [None, None, {"pages": 1}, {"pages": 1}]


@in_virtual_time
async def test_once_no_other_run_can_begin_none_is_looked_for() -> None:
    inngest = Running(0.01)
    await ask_for_a_minute(inngest, 1)
    assert inngest.asked == 1


@in_virtual_time
async def test_after_the_grace_an_event_is_looked_for_again_and_thoroughly_without_a_run() -> None:
    for inngest, wire_id, thorough in (
        (SlowInngest(0.01), "mine", [False, True, False]),
        (SlowInngest(0.01), "", [False, True, False]),  # the service chose its id
        (Running(0.01), "mine", [False, False]),
        (FailingOnce(0.01), "mine", [False, False, False]),  # the search after the grace fails
    ):
        asker = RunAsker(inngest, lambda *_: None, POLICY, lambda _: "in plain")
        held = row("a", 0, wall_now_ms())
        meta = msgspec.structs.replace(held.meta, wire_id=wire_id, environment="branch")
        held = msgspec.structs.replace(held, meta=meta, inngest_id="01ULID")
        followed = FollowedEvent(held, POLICY, runs_follow=True)
        used = list[int]()
        for _ in range(3):
            await asker.ask_soon(followed)
            used.append(inngest.used)
            followed.show_row(msgspec.structs.replace(held, settled_at_ms=LONG_AGO))
            await asyncio.sleep(2)
        assert inngest.thorough == thorough
        outputs = {one.id: one.output for one in followed.told.values()}
        assert outputs in ({}, {"r-0": None, "r-1": "in plain"})
        is_asked = wire_id and not followed.told
        assert used == ([0, 1, 1] if is_asked else [0, 0, 0])  # what is known is not asked


@pytest.mark.parametrize(
    ("held_ms", "thorough", "used"),
    [(4_999, False, 0), (5_000, True, 0), (299_999, True, 0), (300_000, True, 1)],
)
@in_virtual_time
async def test_after_five_seconds_a_search_is_thorough_after_five_minutes_its_id_is_looked_for(
    held_ms: int, used: int, monkeypatch: pytest.MonkeyPatch, *, thorough: bool
) -> None:
    monkeypatch.setattr(run_asker, "wall_now_ms", lambda: LONG_AGO + held_ms)
    inngest, meta = SlowInngest(0.01), Meta("mine", "branch")
    held = msgspec.structs.replace(row("a", 0, LONG_AGO), meta=meta, inngest_id="01ULID")
    followed = FollowedEvent(held, POLICY, runs_follow=True)
    await RunAsker(inngest, lambda *_: None, POLICY).ask_soon(followed)
    assert (inngest.thorough, inngest.used) == ([thorough], used)


@in_virtual_time
async def test_rows_are_read_so_many_at_a_time() -> None:
    states = [State.PENDING, State.DELIVERING, State.SENT]
    rows = [msgspec.structs.replace(row("a", at, T), state=states[at % 3]) for at in range(502)]
    reads: list[tuple[str, ...]] = []

    class Rows:
        async def rows(self, wanted: Filter) -> list[Row]:
            assert len(wanted.ids) == wanted.limit
            reads.append(wanted.ids)
            return [one for one in rows if one.id in wanted.ids]

    follower = EventFollower(Rows(), None, POLICY)
    looking = asyncio.create_task(follower.look())
    *followed, left = [follower.begin(one, "ada") for one in rows]
    follower.end(left, "ada")
    await asyncio.sleep(0.1)
    assert [len(ids) for ids in reads] == [500, 1]
    assert {one for ids in reads for one in ids} == {one.id for one in followed}
    assert all(one.is_moving for one in followed)
    follower.begin(msgspec.structs.replace(rows[0], state=State.DEAD), "ada")
    assert not followed[0].is_moving  # it is as it was just read
    follower.begin(msgspec.structs.replace(rows[1], state=State.DELIVERED), "ada")
    assert not followed[1].is_moving  # its runs can't be asked for
    looking.cancel()


class Store:
    """One pending row. The first two reads of it find the store away."""

    def __init__(self) -> None:
        self.row = msgspec.structs.replace(row("a", 0, T), state=State.PENDING)
        self.reads: list[float] = []  # their times

    async def rows(self, wanted: Filter) -> list[Row]:
        self.reads.append(asyncio.get_running_loop().time())
        if len(self.reads) <= 2:
            raise OutboxUnavailableError
        return [self.row]


@in_virtual_time
async def test_an_outage_of_the_store_is_waited_out_and_a_left_event_is_forgotten() -> None:
    store = Store()
    follower = EventFollower(store, None, POLICY)
    looking = asyncio.create_task(follower.look())
    first = follower.begin(store.row, "ada")
    store.row = msgspec.structs.replace(store.row, state=State.DEAD)
    await asyncio.sleep(2)
    assert first.state is State.DEAD
    reads = list(store.reads)
    assert [at - reads[0] for at in reads] == [0, POLICY.look_seconds, 2 * POLICY.look_seconds]
    await asyncio.sleep(1)
    follower.end(first, "ada")
    await asyncio.sleep(1.9)
    assert follower.begin(store.row, "ada") is first
    follower.end(first, "ada")
    await asyncio.sleep(4)
    assert follower.begin(store.row, "ada") is not first
    assert store.reads == reads  # nor that of a dead one
    looking.cancel()
