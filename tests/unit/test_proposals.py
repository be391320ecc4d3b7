"""Changes of many rows: of those that were shown, at the rate that was asked for."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import msgspec
import pytest
import structlog

from inngest_outbox.console.operations.bulk import (
    Action,
    Proposals,
    actions_on,
    change_rows,
    chosen,
)
from inngest_outbox.console.operations.paced import PacedReplay, PacedReplayer, PacedReplays
from inngest_outbox.console.operations.search import Found
from inngest_outbox.errors import InvalidFieldError, OutboxUnavailableError
from inngest_outbox.outbox.audit import Act
from inngest_outbox.outbox.model import Filter, Named, Row, State
from tests.support.made_row import made_row
from tests.support.memory_scopes import MemoryScopes
from tests.support.virtual_time import in_virtual_time, now

NOW_MS = 1_000_000
ACT = Act("a-1", "all")


class Finds:
    """A search that finds these rows."""

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows
        self.asked: list[Filter] = []

    async def find(self, wanted: Filter) -> Found:
        self.asked.append(wanted)
        below = wanted.before_seq
        return Found(
            [row for row in self._rows if below is None or row.seq < below][: wanted.limit]
        )


@pytest.mark.parametrize(
    ("settled_ms", "seen_ms", "found"),
    [
        (NOW_MS, NOW_MS - 10, 0),  # after it was shown
        (NOW_MS, 0, 0),
        (NOW_MS - 10, NOW_MS - 10, 1),
        (NOW_MS + 5_000, None, 1),  # while it looked, or by a clock that is ahead of this one
    ],
)
async def test_what_was_settled_after_it_was_shown_is_left_alone(
    settled_ms: int, seen_ms: int | None, found: int
) -> None:
    for state in (State.SENT, State.DELIVERED, State.DEAD):
        proposals = Proposals(Finds([made_row(state, settled_at_ms=settled_ms)]), Replays())  # type: ignore[arg-type]
        for action in actions_on(state):
            proposal = await proposals.propose(action, Filter(), now_ms=NOW_MS, seen_ms=seen_ms)
            assert len(proposal.rows) == found
            confirmed = {"now_ms": NOW_MS + 99, "seen_ms": proposal.seen_ms}
            assert await proposals.propose(action, Filter(), **confirmed) == proposal


@pytest.mark.parametrize(
    ("more", "told"), [({}, False), ({"is_cut": True}, True), ({"next_seq": 1}, True)]
)
async def test_a_dry_run_says_that_more_match_than_were_found(
    more: dict[str, Any], *, told: bool
) -> None:
    class More(Finds):
        async def find(self, wanted: Filter) -> Found:
            return dataclasses.replace(await super().find(wanted), **more)

    proposals = Proposals(More(rows_in(State.DEAD)), Replays())  # type: ignore[arg-type]
    for seen_ms in (None, -1):
        proposal = await proposals.propose(
            Action.REPLAY, Filter(id_prefix="e"), now_ms=0, seen_ms=seen_ms
        )
        assert proposal.has_more is told


class Replays:
    """Repairs that remember when how many rows were replayed, and all that they were asked for."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int]] = []
        self.asked: list[tuple[Named, str, Act]] = []

    async def replay(self, wanted: Named, *, actor: str, act: Act | None = None) -> list[str]:
        assert act
        self.seen.append((asyncio.get_running_loop().time(), len(wanted.ids)))
        self.asked.append((wanted, actor, act))
        return list(wanted.ids)

    async def discard(self, wanted: Named, *, actor: str, act: Act | None = None) -> list[str]:
        assert act
        self.seen.append((asyncio.get_running_loop().time(), len(wanted.ids)))
        self.asked.append((wanted, actor, act))
        return list(wanted.ids)[1:]


class Away(Replays):
    """The store is away at the second page."""

    async def replay(self, wanted: Named, *, actor: str, act: Act | None = None) -> list[str]:
        if len(self.seen) == 1:
            self.seen.append((asyncio.get_running_loop().time(), 0))
            raise OutboxUnavailableError
        return await super().replay(wanted, actor=actor, act=act)


@pytest.mark.parametrize(
    ("count", "per_minute", "seen"),
    [
        (6, 120, [(0, 1), (1, 2), (2, 2), (3, 1)]),
        (3, 90, [(0, 1), (1.333, 2)]),  # 1.5 a second
        (3, 30, [(0, 1), (2, 1), (4, 1)]),
        (502, 60_000, [(0, 1), (1, 500), (2, 1)]),
        (502, None, [(0, 1), (0, 500), (0, 1)]),
    ],
)
@in_virtual_time
async def test_a_change_at_a_rate_takes_its_time(
    count: int, per_minute: int | None, seen: list[tuple[float, int]]
) -> None:
    """Also where rows of a page had changed meanwhile, and from one state to the next."""
    replays, rows = Replays(), rows_in(State.SENT, *[State.DEAD] * (count - 1))
    await change_rows(replays.discard, rows, actor="ada", act=ACT, per_minute=per_minute)
    assert [(round(at, 3), rows) for at, rows in replays.seen] == seen


async def test_a_change_takes_large_rows_in_smaller_pages() -> None:
    """What is discarded goes through the log, and a disk may be nearly full."""
    replays, sizes = Replays(), (1, 2**21 - 1, 1, 2**22, 3)
    rows = [
        msgspec.structs.replace(row, payload_bytes=size)
        for row, size in zip(rows_in(*[State.DEAD] * 5), sizes, strict=True)
    ]
    await change_rows(replays.discard, rows, actor="ada", act=ACT)
    assert [wanted.ids for wanted, *_ in replays.asked] == [
        ("e-0", "e-1"),
        ("e-2",),
        ("e-3",),
        ("e-4",),
    ]


def rows_in(*states: State) -> list[Row]:
    """Rows e-0, e-1 … in these states, accepted at the second of their number."""
    return [
        made_row(state, id=f"e-{at}", name="n", accepted_at_ms=at * 1000, seq=100 - at)
        for at, state in enumerate(states)
    ]


EACH = (State.PENDING, State.DELIVERING, State.SENT, State.DELIVERED, State.DEAD)
DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("action", "ids", "late", "lost"),
    [(Action.REPLAY, "45", 2, 0), (Action.DISCARD, "02345", 0, 4)],
)
async def test_a_dry_run_tells_what_is_left_out_late_and_lost(
    action: Action, ids: str, late: int, lost: int
) -> None:
    rows = [msgspec.structs.replace(row, first_sent_at_ms=0) for row in rows_in(*EACH, State.DEAD)]
    wanted = Filter(name="n", state=State.DEAD, before_seq=999, limit=2)
    search = Finds(rows)
    proposals = Proposals(search, Replays())  # type: ignore[arg-type]
    found = await proposals.propose(action, wanted, now_ms=DAY_MS + 1)
    assert [row.id for row in found.rows] == [f"e-{one}" for one in ids]
    assert (found.action, found.wanted, found.seen_ms) == (action, wanted, DAY_MS + 1)
    assert (found.left_out, found.late, found.lost) == (6 - len(ids), late, lost)
    assert search.asked == [msgspec.structs.replace(wanted, limit=10_000)]
    found = await proposals.propose(action, wanted, now_ms=DAY_MS, seen_ms=2_000)
    assert (found.seen_ms, found.late) == (2_000, 0)
    assert found.left_out == 3 - len([one for one in ids if one <= "2"])
    found = await proposals.propose(action, wanted, now_ms=DAY_MS + 1, seen_ms=5_000)
    assert found.late == late


@pytest.mark.parametrize("given", [{}, {"ids": ("e-0",)}, {"state": State.SENT}])
async def test_a_replay_of_rows_in_any_state_looks_for_dead_ones_unless_they_are_named(
    given: dict[str, Any],
) -> None:
    for action, state in ((Action.REPLAY, None if given else State.DEAD), (Action.DISCARD, None)):
        search = Finds([])
        proposal = await Proposals(search, Replays()).propose(action, Filter(**given), now_ms=0)  # type: ignore[arg-type]
        assert proposal.wanted.state is given.get("state", state)
        assert search.asked == [msgspec.structs.replace(proposal.wanted, limit=10_000)]


async def test_a_change_names_rows_by_state_in_pages_and_tells_how_far_it_is() -> None:
    replays, told = Replays(), list[tuple[int, int]]()
    rows = rows_in(State.DEAD, State.PENDING, *[State.DEAD] * 501)
    proposals = Proposals(Finds(rows), replays)  # type: ignore[arg-type]
    proposal = await proposals.propose(Action.DISCARD, Filter(), now_ms=0)
    done = await proposals.carry_out(proposal, ACT, actor="ada")
    assert [(one.state, len(one.ids)) for one, *_ in replays.asked] == [
        (State.PENDING, 1),
        (State.DEAD, 500),
        (State.DEAD, 2),
    ]
    assert {(actor, one) for _, actor, one in replays.asked} == {("ada", ACT)}
    assert (len(done), done[:2]) == (500, ["e-2", "e-3"])
    await change_rows(
        replays.discard, rows, actor="ada", act=ACT, told=lambda *how_far: told.append(how_far)
    )
    assert told == [(1, 503), (501, 503), (503, 503)]
    proposal = dataclasses.replace(proposal, action=Action.REPLAY)
    assert len(await proposals.carry_out(proposal, ACT, actor="ada")) == 503
    with pytest.raises(OutboxUnavailableError):
        await Proposals(Finds(rows), Away()).carry_out(proposal, ACT, actor="ada")  # type: ignore[arg-type]


def test_a_state_has_its_actions() -> None:
    discard, both = [Action.DISCARD], [Action.REPLAY, Action.DISCARD]
    assert [actions_on(state) for state in EACH] == [discard, [], discard, discard, both]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Filter(before_seq=7, limit=0), "every row"),
        (Filter(name="a/b", before_seq=7, limit=9), "name=a/b, limit=9"),
    ],
)
def test_the_audit_says_how_rows_were_chosen(wanted: Filter, words: str) -> None:
    assert chosen(wanted) == words


ONE = PacedReplay(ACT, "ada", Filter(name="n"), NOW_MS, 120, total=5)


@pytest.mark.parametrize(
    ("per_minute", "step", "seconds_left"), [(1, 1, 180.0), (60, 1, 3.0), (61, 2, 180 / 61)]
)
def test_a_replay_at_a_rate_says_how_long_it_lasts(
    per_minute: int, step: int, seconds_left: float
) -> None:
    one = msgspec.structs.replace(ONE, per_minute=per_minute, done=2)
    assert (one.step, one.seconds_left) == (step, seconds_left)
    assert ONE.seconds_left == 2.5


async def test_of_replays_at_a_rate_one_is_under_way_until_it_is_stopped() -> None:
    scopes = MemoryScopes()
    replays = PacedReplays(scopes)
    assert await replays.current() is None
    await replays.stop()
    proposals = Proposals(Finds(rows_in(State.DEAD, State.DEAD, State.SENT)), Replays())  # type: ignore[arg-type]
    proposal = await proposals.propose(Action.REPLAY, Filter(name="n"), now_ms=7_000)
    first = PacedReplay.of(proposal, ACT, actor="ada", per_minute=30)
    assert first == PacedReplay(ACT, "ada", Filter(name="n", state=State.DEAD), 7_000, 30, 2)
    await replays.start(first)
    kept = {"act", "actor", "wanted", "seenAt", "perMinute", "total", "done", "before"}
    assert scopes.stored["watch", "paced-replay"].keys() == kept  # the next version reads it
    with pytest.raises(InvalidFieldError, match=r"^A replay at a rate is under way: stop it first"):
        await replays.start(ONE)
    assert await PacedReplays(scopes).current() == first
    for _ in range(2):
        await replays.stop()
    assert scopes.stored["watch", "paced-replay"] == {}
    scopes.stored["watch", "paced-replay"] = msgspec.to_builtins(first)  # progress came too late
    assert await replays.current() is None
    second = msgspec.structs.replace(first, act=Act("a-2", "all"))
    await replays.start(second)
    assert await replays.current() == second
    scopes.stored["watch", "paced-replay"] = {"act": "of another version"}
    assert await replays.current() is None


class Turns:
    """The turn of this process but between 10 and 21 seconds."""

    async def mine(self) -> bool:
        return not 10 <= now() < 21


class Pauses(Finds):
    """A search whose first look pauses before it has found a row."""

    async def find(self, wanted: Filter) -> Found:
        found = await super().find(wanted)
        return found if wanted.before_seq else Found([], 101, NOW_MS)


async def replay_for(
    seconds: float,
    rows: list[Row],
    scopes: MemoryScopes,
    repairs: Replays,
    search: type[Finds] = Finds,
) -> PacedReplay | None:
    """Replay these rows; what is under way afterwards."""
    found, replays = search(rows), PacedReplays(scopes)
    replayer = PacedReplayer(replays, found, repairs, Turns())  # type: ignore[arg-type]
    running = asyncio.create_task(replayer.run())
    await asyncio.sleep(seconds)
    running.cancel()
    assert {one.name for one in found.asked} <= {"n"}
    assert all(one.limit for one in found.asked)
    return await PacedReplays(scopes).current()


async def begun(one: PacedReplay = ONE) -> MemoryScopes:
    scopes = MemoryScopes()
    await PacedReplays(scopes).start(one)
    return scopes


def dead(count: int, *, later: tuple[int, ...] = ()) -> list[Row]:
    """Dead rows, of which those in `later` died after the dry run."""
    return [
        msgspec.structs.replace(row, settled_at_ms=NOW_MS + (at in later))
        for at, row in enumerate(rows_in(*[State.DEAD] * count))
    ]


@in_virtual_time
async def test_a_replay_at_a_rate_takes_its_time_and_no_more_than_was_shown() -> None:
    one = msgspec.structs.replace(ONE, total=4, per_minute=90)
    repairs, scopes, rows = Replays(), await begun(one), dead(7, later=(1,))
    under_way = await replay_for(0.5, rows, scopes, repairs)
    assert under_way == msgspec.structs.replace(one, done=1, before=99)
    await asyncio.sleep(0.5)
    assert await replay_for(60, rows, scopes, repairs) is None
    times = [round(at, 3) for at, _ in repairs.seen]
    asked = [(at, *one.ids) for at, (one, *_) in zip(times, repairs.asked, strict=True)]
    assert asked == [(0, "e-0"), (1, "e-2", "e-3"), (2.333, "e-4")]
    assert {(one.state, *by) for one, *by in repairs.asked} == {(State.DEAD, "ada", ACT)}
    assert scopes.stored["watch", "paced-replay"] == {}


@pytest.mark.parametrize(
    ("rows", "total", "replayed", "search"),
    [
        (dead(4, later=(0, 1)), 5, ("e-2", "e-3"), Finds),
        (dead(1), 5, ("e-0",), Finds),
        (dead(3), 2, ("e-0", "e-1"), Finds),
        (dead(2), 5, ("e-0", "e-1"), Pauses),
    ],
    ids=["some died later", "fewer are left", "one step takes all", "the search pauses"],
)
@in_virtual_time
async def test_a_replay_at_a_rate_ends_with_the_last_row_that_is_left(
    rows: list[Row], total: int, replayed: tuple[str, ...], search: type[Finds]
) -> None:
    repairs, scopes = Replays(), await begun(msgspec.structs.replace(ONE, total=total))
    assert await replay_for(9, rows, scopes, repairs, search) is None
    assert [one.ids for one, *_ in repairs.asked] == [replayed]


@in_virtual_time
async def test_events_that_another_replayed_meanwhile_do_not_count() -> None:
    class Late(Replays):
        async def replay(self, wanted: Named, *, actor: str, act: Act | None = None) -> list[str]:
            return (await super().replay(wanted, actor=actor, act=act))[1:]

    under_way = await replay_for(0.5, dead(7), await begun(), Late())
    assert under_way == msgspec.structs.replace(ONE, done=1, before=99)


@in_virtual_time
async def test_a_replay_at_a_rate_waits_for_its_turn_and_for_the_store() -> None:
    repairs, scopes = Away(), MemoryScopes()
    running = asyncio.create_task(replay_for(60, dead(5), scopes, repairs))
    with structlog.testing.capture_logs() as lines:
        await asyncio.sleep(7)
        scopes.is_away = True
        await asyncio.sleep(2)
        scopes.is_away = False
        await asyncio.sleep(2)
        await PacedReplays(scopes).start(msgspec.structs.replace(ONE, per_minute=15, total=3))
        await running
    assert repairs.seen == [(22, 1), (26, 0), (28, 1), (32, 1)]
    told = {"event": "paced_replay_waits", "log_level": "warning"}
    assert lines == [{**told, "reason": str(OutboxUnavailableError())}] * 2


@pytest.mark.parametrize("then", [None, msgspec.structs.replace(ONE, act=Act("a-2", "all"))])
@in_virtual_time
async def test_a_stop_and_a_start_in_a_step_of_a_replay_hold(then: PacedReplay | None) -> None:
    scopes = await begun()

    class Stopped(Replays):
        async def replay(self, wanted: Named, *, actor: str, act: Act | None = None) -> list[str]:
            await PacedReplays(scopes).stop()
            if then:
                await PacedReplays(scopes).start(then)
            return await super().replay(wanted, actor=actor, act=act)

    repairs = Stopped()
    assert await replay_for(0.4, dead(5), scopes, repairs) == then
    assert len(repairs.asked) == 1
