"""The record of a history: torn lines, and what a release says of the claim before it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from service.errors import OutboxUnavailableError
from service.outbox.model import Batch
from tests.support.linearizability.check import Linearization, NotLinearizableError
from tests.support.linearizability.claim_record import event_ids, record_claims
from tests.support.linearizability.record import Call, Recorder, complete, read_calls
from tests.support.postgres_server import PostgresServer
from tests.support.storage import PostgresStorage, append_all, ask, claim, eventually
from tests.support.tcp_proxy import TcpProxy


def test_what_is_released_was_claimed_in_the_same_life_of_the_service() -> None:
    truth = Call("tables-0", "truth", None, 90, 100, {"rows": [], "claims": [], "paused": False})
    calls = [truth, Call("service1-4", "release", ["e-1"], 200)]

    complete(calls)

    [claim] = [call for call in calls if call.kind == "claim"]
    assert (claim.began_ns, claim.ended_ns, claim.told) == (101, 200, ["e-1"])


def test_posts_without_an_answer_may_have_made_either_of_two_events() -> None:
    """The older event is claimed before the later post begins, and found after the newer one."""
    newest = {"state": None, "limit": 1}
    rows = [("e-1", "delivering", 1), ("e-2", "pending", 2)]
    calls = [
        Call("front0-0", "append", [], 10),
        Call("service0-0", "claim", None, 15, 20, ["e-1"]),
        Call("front0-1", "append", [], 30),
        Call("terminal0-0", "list", newest, 35, 40, [("e-2", "pending", 2)]),
        Call("tables-0", "truth", None, 50, 50, {"rows": rows, "claims": [], "paused": False}),
    ]

    complete(calls)

    Linearization(calls, recovers=True).check()


def test_a_post_that_an_early_look_needs_is_not_given_to_a_late_one() -> None:
    everything = {"state": None, "limit": 100}
    first, second = ("e-1", "pending", 1), ("e-2", "pending", 2)
    calls = [
        Call("terminal0-0", "list", everything, 5, 100, [second, first]),
        Call("front0-0", "append", [], 10),
        Call("service0-0", "list", everything, 20, 30, [first]),
        Call("front0-1", "append", [], 40),
    ]

    complete(calls)

    Linearization(calls, recovers=True).check()


def test_a_post_that_begins_after_a_look_has_not_made_what_it_found() -> None:
    found = Call("terminal0-0", "list", {"state": None, "limit": 1}, 5, 8, [("e-1", "pending", 1)])
    calls = [found, Call("front0-0", "append", [], 10)]

    complete(calls)

    with pytest.raises(NotLinearizableError):
        Linearization(calls, recovers=True).check()


def test_a_line_that_a_kill_has_torn_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "calls"
    Recorder(path, "killed").note("truth", {"rows": ["e-1"]})
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"e-1")])
    Recorder(path, "later").note("count", 3)

    calls = {call.name: call for call in read_calls(path)}

    assert [(call.kind, call.ended_ns is None) for call in calls.values()] == [
        ("truth", True),
        ("count", False),
    ]


async def test_the_release_of_a_claim_whose_answer_was_lost_is_recorded(
    postgres: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    """Others have seen its rows being delivered."""
    path = tmp_path / "calls"
    there = PostgresStorage(postgres_url)
    async with TcpProxy(postgres.socket) as proxy, there.open() as other:
        through = PostgresStorage(f"postgresql://outbox@127.0.0.1:{proxy.port}/outbox")
        async with through.open() as outbox:
            record_claims(outbox, Recorder(path, "service0"))
            await append_all(outbox, 1)
            await claim(outbox)
            events = await append_all(other, 2)
            await outbox.supervisor.close()  # nothing else uses a connection
            proxy.swallow_answers()
            lost = asyncio.create_task(outbox.queue.claim(ask(lease_seconds=600)))
            await eventually(other.inspector.stats, lambda stats: stats.delivering == 3)
            proxy.cut()
            await asyncio.gather(lost, return_exceptions=True)

            async def comes_back() -> Batch | None:
                try:
                    return await outbox.queue.claim(ask())
                except OutboxUnavailableError:
                    return None

            batch = await eventually(comes_back)

    assert batch is not None
    [released] = [call for call in read_calls(path) if call.kind == "release"]
    wanted = [each.id for each in events]
    assert (released.kind, sorted(released.asked), event_ids(batch)) == ("release", wanted, wanted)


async def test_a_claim_that_is_answered_after_its_cancellation_is_recorded_as_it_came(
    postgres: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    """Its process may be killed before it can give the rows back."""
    path = tmp_path / "calls"
    async with PostgresStorage(postgres_url).open() as outbox:
        record_claims(outbox, Recorder(path, "service0"))
        [event] = await append_all(outbox, 1)
        async with outbox.queue._claiming:
            cancelled = asyncio.create_task(outbox.queue.claim(ask(lease_seconds=600)))
            await eventually(lambda: read_calls(path))
            cancelled.cancel()
            await asyncio.gather(cancelled, return_exceptions=True)
            [call] = read_calls(path)
            assert (call.kind, call.ended_ns) == ("claim", None)
        [back] = await eventually(
            lambda: [call for call in read_calls(path) if call.kind == "return"]
        )
    [taken, *_] = read_calls(path)
    assert (taken.told, back.asked) == ([event.id], [event.id])
