"""The relay between a real SQLite outbox and the stand-in: each row of the table of answers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest

from service.identity.user import User
from service.observe.recorder import NullRecorder
from service.outbox.event import encode_event
from service.outbox.outbox import Row, State
from service.outbox.sqlite_outbox import SqliteOutbox, open_sqlite_outbox
from service.relay import lane as lanes
from service.relay import outcome as outcomes
from service.relay.inngest import InngestSender
from service.relay.lane import LaneState
from service.relay.relay import Relay
from service.stand_in.event_api import EventApi
from service.stand_in.faults import (
    Action,
    Answer,
    Cut,
    Drip,
    Hang,
    Match,
    Partial,
    Poison,
    Reset,
    Slow,
    TooLarge,
)
from tests.contract.storage import eventually

POISON = Match(prefix="poison")


class Document(msgspec.Struct, rename="camel"):
    document_name: str


class Delivery:
    """A relay at work, and what becomes of the events that are given to it."""

    def __init__(self, outbox: SqliteOutbox, relay: Relay, api: EventApi) -> None:
        self.outbox = outbox
        self.relay = relay
        self.api = api

    async def accept(self, *names: str) -> list[str]:
        """Append an event for each name at one moment; their ids."""
        user = User(id="u-1", email=None, name=None, organization_id=None, email_verified=False)
        now_ms = int(time.time() * 1000)
        events = [
            encode_event("documents/aws.index", Document(name), user, now_ms) for name in names
        ]
        await asyncio.gather(*(self.outbox.append(one) for one in events))
        return [one.id for one in events]

    async def row(self, event_id: str) -> Row:
        row = await self.outbox.find(event_id)
        assert row is not None
        return row

    async def ends(self, ids: list[str], state: State = State.DELIVERED) -> list[Row]:
        """Wait until all these events are in `state`."""

        async def rows() -> list[Row]:
            return [await self.row(one) for one in ids]

        return await eventually(rows, lambda found: all(row.state is state for row in found))

    async def lane_is(self, state: LaneState) -> None:
        async def look() -> LaneState:
            return self.relay.lane.state

        await eventually(look, lambda found: found is state)


@contextlib.asynccontextmanager
async def delivering(
    path: Path, api: EventApi, *, senders: int = 4, fallback_key: str | None = None
) -> AsyncIterator[Delivery]:
    async with (
        open_sqlite_outbox(path, max_pending=10_000, max_pending_per_user=10_000) as outbox,
        aiohttp.ClientSession() as http,
    ):
        sender = InngestSender(
            http,
            origin=api.url,
            key="key-1",
            fallback_key=fallback_key,
            environment=None,
            timeout_seconds=0.5,
        )
        relay = Relay(
            outbox,
            sender,
            NullRecorder(),
            max_events=100,
            max_bytes=1 << 20,
            senders=senders,
            send_timeout_seconds=0.5,
            drain_seconds=5,
        )
        running = [asyncio.create_task(relay.run()), asyncio.create_task(relay.keep_lane())]
        try:
            yield Delivery(outbox, relay, api)
        finally:
            for task in running:
                task.cancel()
            ended = await asyncio.gather(*running, return_exceptions=True)
            await relay.stop()
            assert all(one is None or isinstance(one, asyncio.CancelledError) for one in ended)


@pytest.fixture
async def delivery(tmp_path: Path, inngest_api: EventApi) -> AsyncIterator[Delivery]:
    async with delivering(tmp_path / "outbox.db", inngest_api) as made:
        yield made


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delays of tens of milliseconds where the real ones are seconds."""
    monkeypatch.setattr(outcomes, "REFUSAL_DELAYS_SECONDS", (0.02, 0.04))
    monkeypatch.setattr(outcomes, "SUSPECT_DELAY_SECONDS", 0.01)
    monkeypatch.setattr(outcomes, "MAX_SUSPECT_DELAY_SECONDS", 0.05)
    monkeypatch.setattr(lanes, "MISCONFIGURED_SECONDS", 0.1)
    monkeypatch.setattr(lanes, "MAX_BACKOFF_SECONDS", 0.3)


async def test_an_id_for_every_event_delivers_all(delivery: Delivery) -> None:
    ids = await delivery.accept(*[f"d-{n}" for n in range(50)])
    rows = await delivery.ends(ids)
    assert {(row.attempts, row.sends) for row in rows} == {(1, 1)}
    assert [delivery.api.ledger.times(one) for one in ids] == [1] * 50


@pytest.mark.parametrize("fault", [Partial(3), Partial(3, blank=True)], ids=["fewer", "empty"])
async def test_without_an_id_an_event_stays_and_is_sent_again_at_once(
    delivery: Delivery, fault: Action
) -> None:
    delivery.api.faults.add(fault)
    ids = await delivery.accept(*[f"d-{n}" for n in range(10)])
    rows = await delivery.ends(ids)
    assert {row.attempts for row in rows} == {1}
    assert sorted(row.sends for row in rows) == [1] * 7 + [2] * 3
    assert delivery.api.ledger.stats.arrivals == 10


async def test_a_refused_event_dies_alone_after_1_and_3_s_with_the_servers_words(
    delivery: Delivery,
) -> None:
    delivery.api.faults.add(Poison(error="no such name"), times=None)
    began = time.monotonic()
    ids = await delivery.accept(*[f"d-{n}" for n in range(10)], "poison", "d-11", "d-12")
    bad = ids.pop(10)
    rows = await delivery.ends(ids)
    assert {row.attempts for row in rows} == {1}
    assert time.monotonic() - began < 1
    [row] = await delivery.ends([bad], State.DEAD)
    assert time.monotonic() - began > 4
    assert (row.reason, row.detail, row.attempts) == ("rejected", "no such name", 3)
    notes = [str(note["note"]) for note in row.history]
    assert notes == [
        "suspected: no such name",
        "refused: no such name",
        "refused: no such name",
    ]
    assert delivery.api.ledger.times(bad) == 0
    assert {delivery.api.ledger.times(one) for one in ids} == {1}


@pytest.mark.parametrize("senders", [1, 4])
@pytest.mark.usefixtures("quick")
async def test_poison_among_thousands_dies_and_nothing_else(
    tmp_path: Path, inngest_api: EventApi, senders: int
) -> None:
    inngest_api.faults.add(Poison(error="bad"), times=None)
    names = ["poison" if n in {0, 1, 77, 1234, 1998, 1999} else f"d-{n}" for n in range(2000)]
    async with delivering(tmp_path / "outbox.db", inngest_api, senders=senders) as delivery:
        ids = await delivery.accept(*names)
        bad = [one for one, name in zip(ids, names, strict=True) if name == "poison"]
        healthy = [one for one in ids if one not in set(bad)]
        await inngest_api.ledger.wait_for_ids(len(healthy))
        dead = await delivery.ends(bad, State.DEAD)
        assert {(row.reason, row.detail) for row in dead} == {("rejected", "bad")}
        stats = await delivery.outbox.stats()
        assert (stats.dead, stats.delivered) == (6, 1994)
    assert {inngest_api.ledger.times(one) for one in healthy} == {1}


async def test_a_batch_that_is_too_large_is_halved(delivery: Delivery) -> None:
    delivery.api.faults.add(TooLarge(max_events=3), times=None)
    rows = await delivery.ends(await delivery.accept(*[f"d-{n}" for n in range(40)]))
    assert {row.attempts for row in rows} == {1}


async def test_one_event_that_is_too_large_dies_of_it(delivery: Delivery) -> None:
    delivery.api.faults.add(TooLarge(max_bytes=600), times=None)
    small, large = await delivery.accept("d", "x" * 900)
    await delivery.ends([small])
    [row] = await delivery.ends([large], State.DEAD)
    assert (row.reason, row.attempts) == ("too_large", 1)


@pytest.mark.parametrize(
    "fault",
    [
        Answer(401, body='{"error":"Event key not found","status":401}'),
        Answer(403),
        Answer(404, body="<html>", content_type="text/html"),
        Answer(308, headers={"Location": "http://127.0.0.1:1/e/x"}),
        Answer(503, body='{"error":"event keys are required to send events","status":503}'),
    ],
    ids=["401", "403", "404", "308", "503 without keys"],
)
@pytest.mark.usefixtures("quick")
async def test_a_wrong_configuration_pauses_the_lane_and_ages_nobody(
    delivery: Delivery, fault: Action
) -> None:
    delivery.api.faults.add(fault, times=None)
    ids = await delivery.accept(*[f"d-{n}" for n in range(10)])
    await delivery.lane_is(LaneState.MISCONFIGURED)
    await delivery.api.ledger.wait_for_requests(3)
    assert {(await delivery.row(one)).attempts for one in ids} == {0}
    delivery.api.faults.clear()
    rows = await delivery.ends(ids)
    assert {row.attempts for row in rows} == {1}
    assert [request.events for request in delivery.api.ledger.requests][1:4] == [1, 1, 1]


@pytest.mark.parametrize(
    "fault",
    [
        *(Answer(status) for status in (408, 425, 429, 500, 502, 503, 504)),
        Answer(502, body="<html>bad gateway</html>", content_type="text/html"),
        Answer(400, body="<html>not the API's</html>", content_type="text/html"),
        Answer(200, body="<html>captive portal</html>", content_type="text/html"),
        Answer(200, body='{"ids": ["01'),
        Answer(200, body="", content_type="text/plain"),
        Answer(200, body='{"ids": [1, 2]}'),
        Answer(204, body=""),
        Reset("unread"),
        Reset("read"),
        Reset("stored"),
        Hang(),
        Hang(store=True),
        Slow(seconds=5),
        Drip(seconds=0.2),
        Cut(answer_bytes=10),
    ],
    ids=str,
)
@pytest.mark.usefixtures("quick")
async def test_trouble_closes_the_lane_ages_nobody_and_ends_by_itself(
    delivery: Delivery, fault: Action
) -> None:
    delivery.api.faults.add(fault, times=None)
    ids = await delivery.accept(*[f"d-{n}" for n in range(20)])
    await delivery.lane_is(LaneState.CLOSED)
    await delivery.api.ledger.wait_for_requests(3)
    ids += await delivery.accept("later")
    assert {(await delivery.row(one)).attempts for one in ids} == {0}
    delivery.api.faults.clear()
    rows = await delivery.ends(ids)
    assert {row.attempts for row in rows} == {1}
    await delivery.lane_is(LaneState.OPEN)


@pytest.mark.usefixtures("quick")
async def test_a_server_that_is_away_is_waited_for(delivery: Delivery) -> None:
    await delivery.api.close()
    ids = await delivery.accept(*[f"d-{n}" for n in range(20)])
    await delivery.lane_is(LaneState.CLOSED)
    assert "Connect" in delivery.relay.lane.reason
    await delivery.api.start()
    rows = await delivery.ends(ids)
    assert {(row.attempts, row.state) for row in rows} == {(1, State.DELIVERED)}


async def test_retry_after_is_honoured(delivery: Delivery) -> None:
    delivery.api.faults.add(Answer(429, retry_after=1))
    began = time.monotonic()
    await delivery.ends(await delivery.accept("d"))
    assert time.monotonic() - began >= 1


@pytest.mark.usefixtures("quick")
async def test_an_event_that_fails_alone_while_others_pass_is_dead_after_ten(
    delivery: Delivery,
) -> None:
    delivery.api.faults.add(Answer(500), times=None, match=POISON)
    ids = await delivery.accept("d-1", "poison", "d-2")
    bad = ids.pop(1)

    async def dead() -> bool:
        ids.extend(await delivery.accept("more"))
        return (await delivery.row(bad)).state is State.DEAD

    await eventually(dead)
    row = await delivery.row(bad)
    assert (row.reason, row.attempts) == ("undeliverable", 10)
    assert row.detail is not None
    assert row.detail.startswith("500")
    rows = await delivery.ends(ids)
    assert {row.attempts for row in rows} == {1}


@pytest.mark.usefixtures("quick")
async def test_when_everything_is_refused_the_lane_closes_and_the_rest_does_not_age(
    delivery: Delivery,
) -> None:
    words = '{"ids":[""],"status":400,"error":"publish failed"}'
    delivery.api.faults.add(Answer(400, body=words), times=None)
    ids = await delivery.accept(*[f"d-{n}" for n in range(200)])
    await delivery.lane_is(LaneState.CLOSED)
    assert delivery.relay.lane.reason == "every event is refused"
    delivery.api.faults.clear()
    await delivery.ends(ids)


async def test_a_fallback_key_is_used_while_the_first_is_refused(tmp_path: Path) -> None:
    async with (
        EventApi(keys=["key-2"]) as api,
        delivering(tmp_path / "outbox.db", api, fallback_key="key-2") as delivery,
    ):
        ids = []
        for n in range(5):
            ids += await delivery.accept(*[f"d-{n}-{m}" for m in range(100)])
        await delivery.ends(ids)
        asked = len(api.ledger.requests)
        await delivery.ends(await delivery.accept("d"))
        assert [request.key for request in api.ledger.requests][asked:] == ["key-2"]
        api.keys = ["key-1"]
        await delivery.ends(await delivery.accept("d"))
        assert delivery.relay.lane.state is LaneState.OPEN


async def test_a_pause_sends_nothing_and_a_resume_sends_all(delivery: Delivery) -> None:
    await delivery.outbox.set_paused(paused=True, actor="test")

    async def paused() -> bool:
        return delivery.relay.lane.paused

    await eventually(paused)
    ids = await delivery.accept("d-1", "d-2")
    stats = await delivery.outbox.stats()
    assert (stats.pending, stats.delivering) == (2, 0)
    assert delivery.api.ledger.request_count == 0
    await delivery.outbox.set_paused(paused=False, actor="test")
    await delivery.ends(ids)


async def test_a_stop_lets_sends_under_way_settle(tmp_path: Path, inngest_api: EventApi) -> None:
    inngest_api.faults.add(Slow(seconds=0.3))
    async with delivering(tmp_path / "outbox.db", inngest_api) as delivery:
        ids = await delivery.accept("d")
        await inngest_api.ledger.wait_for_requests(1)
        await delivery.relay.stop()
        assert (await delivery.row(ids[0])).state is State.DELIVERED


async def test_a_send_that_is_cut_off_by_the_stop_is_sent_again_after_the_start(
    tmp_path: Path, inngest_api: EventApi
) -> None:
    inngest_api.faults.add(Hang(store=True))
    async with delivering(tmp_path / "outbox.db", inngest_api) as delivery:
        delivery.relay._drain_seconds = 0
        ids = await delivery.accept("d")
        await inngest_api.ledger.wait_for_requests(1)
    async with delivering(tmp_path / "outbox.db", inngest_api) as delivery:
        [row] = await delivery.ends(ids)
        assert (row.attempts, row.sends) == (1, 2)
    assert inngest_api.ledger.times(ids[0]) == 2
    assert inngest_api.ledger.runs == 1


@pytest.mark.usefixtures("quick")
async def test_a_lane_in_trouble_stays_so_over_a_restart_and_asks_with_one_event(
    tmp_path: Path, inngest_api: EventApi
) -> None:
    inngest_api.faults.add(Answer(500), times=None)
    async with delivering(tmp_path / "outbox.db", inngest_api) as delivery:
        ids = await delivery.accept(*[f"d-{n}" for n in range(50)])
        await delivery.lane_is(LaneState.CLOSED)
    asked = len(inngest_api.ledger.requests)
    inngest_api.faults.clear()
    async with delivering(tmp_path / "outbox.db", inngest_api) as delivery:
        await delivery.ends(ids)
    assert [one.events for one in inngest_api.ledger.requests][asked : asked + 2] == [1, 2]
