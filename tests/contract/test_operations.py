from __future__ import annotations

import asyncio

import msgspec

from service.outbox.outbox import Dead, Filter, LaneRecord, Settlement, State
from tests.contract.storage import (
    Outbox,
    Storage,
    append_all,
    ask,
    claim,
    claims_nothing,
    deliver,
    event,
    eventually,
    ids,
)


async def bury(outbox: Outbox, count: int = 1, reason: str = "rejected") -> list[str]:
    """Append events and settle them as dead; returns their ids."""
    events = await append_all(outbox, count)
    batch = await claim(outbox)
    dead = [Dead(entry.seq, 4, reason, f"{reason}: words") for entry in batch.entries]
    await outbox.settle(Settlement(batch.claim, dead=dead))
    assert ids(batch) == [each.id for each in events]
    return ids(batch)


async def one_of_each(outbox: Outbox) -> dict[State, str]:
    """Rows in every state; returns their ids."""
    [dead] = await bury(outbox)
    [delivered] = await append_all(outbox, 1, "u-2")
    await deliver(outbox, await claim(outbox))
    [delivering] = await append_all(outbox, 1, "u-3")
    await claim(outbox)
    waiting = event("u-4", name="other/event")
    await outbox.append(waiting)
    return {
        State.DEAD: dead,
        State.DELIVERED: delivered.id,
        State.DELIVERING: delivering.id,
        State.PENDING: waiting.id,
    }


async def test_an_empty_outbox_has_empty_figures(outbox: Outbox) -> None:
    stats = await outbox.stats()
    assert (stats.pending, stats.delivering, stats.delivered, stats.dead) == (0, 0, 0, 0)
    assert (stats.oldest_pending_seconds, stats.oldest_due_seconds) == (None, None)
    assert await outbox.rows(Filter()) == []
    assert await outbox.audit(10) == []


async def test_figures_count_each_state(outbox: Outbox) -> None:
    await one_of_each(outbox)
    stats = await outbox.stats()
    assert (stats.pending, stats.delivering, stats.delivered, stats.dead) == (1, 1, 1, 1)
    assert stats.oldest_pending_seconds is not None
    assert stats.oldest_due_seconds is not None
    assert 0 <= stats.oldest_pending_seconds < 60
    assert stats.database_bytes


async def test_the_oldest_row_is_as_old_as_its_acceptance(outbox: Outbox) -> None:
    old = msgspec.structs.replace(event(), accepted_at_ms=event().accepted_at_ms - 60_000)
    await outbox.append(old)
    await append_all(outbox, 2)
    stats = await outbox.stats()
    assert stats.oldest_pending_seconds is not None
    assert stats.oldest_due_seconds is not None
    assert 59 < stats.oldest_pending_seconds < 90
    assert 59 < stats.oldest_due_seconds < 90


async def test_a_row_that_is_delivering_is_still_not_delivered(outbox: Outbox) -> None:
    old = msgspec.structs.replace(event(), accepted_at_ms=event().accepted_at_ms - 60_000)
    await outbox.append(old)
    await claim(outbox)
    stats = await outbox.stats()
    assert stats.oldest_pending_seconds is not None
    assert stats.oldest_pending_seconds > 59


async def test_rows_come_newest_first_up_to_the_limit(outbox: Outbox) -> None:
    events = await append_all(outbox, 5)
    rows = await outbox.rows(Filter(limit=3))
    assert [row.id for row in rows] == [each.id for each in reversed(events[2:])]


async def test_each_state_can_be_listed(outbox: Outbox) -> None:
    places = await one_of_each(outbox)
    for state, event_id in places.items():
        rows = await outbox.rows(Filter(state=state))
        assert [(row.id, row.state) for row in rows] == [(event_id, state)]
    rows = await outbox.rows(Filter())
    assert {row.state: row.id for row in rows} == places


async def test_filters_are_met_together(outbox: Outbox) -> None:
    places = await one_of_each(outbox)
    dead, waiting = places[State.DEAD], places[State.PENDING]

    async def listed(**wanted: object) -> list[str]:
        return [row.id for row in await outbox.rows(Filter(**wanted))]

    assert await listed(ids=(dead, waiting, "unknown")) == [waiting, dead]
    assert await listed(ids=(dead, dead)) == [dead]
    assert await listed(ids=()) == []
    assert await listed(user_id="u-4") == [waiting]
    assert await listed(name="other/event") == [waiting]
    assert await listed(reason="rejected") == [dead]
    assert await listed(reason="rejected", user_id="u-4") == []
    assert await listed(older_than_seconds=3600) == []
    assert len(await listed(older_than_seconds=-60)) == 4
    assert await listed(user_id='it\'s "quoted"; --') == []


async def test_replayed_rows_are_due_with_nothing_counted_against_them(outbox: Outbox) -> None:
    dead = await bury(outbox, 3)
    replayed = await outbox.replay(Filter(state=State.DEAD, ids=tuple(dead[:2])), actor="ada")
    assert sorted(replayed) == sorted(dead[:2])
    batch = await claim(outbox)
    assert ids(batch) == dead[:2]
    assert all((entry.attempts, entry.sends) == (0, 1) for entry in batch.entries)
    row = await outbox.find(dead[0])
    assert row is not None
    assert (row.reason, row.detail) == (None, None)
    assert "ada" in str(row.history[-1]["note"])
    assert (await outbox.stats()).dead == 1


async def test_replay_takes_dead_rows_only(outbox: Outbox) -> None:
    places = await one_of_each(outbox)
    assert await outbox.replay(Filter(), actor="ada") == [places[State.DEAD]]
    assert await outbox.replay(Filter(), actor="ada") == []


async def test_replay_by_reason_leaves_the_others_dead(outbox: Outbox) -> None:
    await bury(outbox, 1, "too_large")
    [rejected] = await bury(outbox, 1, "rejected")
    assert await outbox.replay(Filter(reason="rejected"), actor="ada") == [rejected]
    assert (await outbox.stats()).dead == 1


async def test_a_waiting_claim_wakes_for_replayed_rows(outbox: Outbox) -> None:
    dead = await bury(outbox)
    assert await claims_nothing(outbox)
    await outbox.replay(Filter(), actor="ada")
    assert ids(await claim(outbox)) == dead


async def test_discarded_rows_are_gone(outbox: Outbox) -> None:
    places = await one_of_each(outbox)
    wanted = tuple(places.values())
    gone = await outbox.discard(Filter(ids=wanted), actor="ada")
    assert sorted(gone) == sorted(set(wanted) - {places[State.DELIVERING]})
    assert [row.id for row in await outbox.rows(Filter())] == [places[State.DELIVERING]]
    assert await outbox.payload(places[State.DEAD]) is None


async def test_discard_takes_only_the_state_that_is_named(outbox: Outbox) -> None:
    places = await one_of_each(outbox)
    assert await outbox.discard(Filter(state=State.DEAD), actor="ada") == [places[State.DEAD]]
    assert await outbox.discard(Filter(state=State.DELIVERING), actor="ada") == []
    assert len(await outbox.rows(Filter())) == 3


async def test_purge_removes_old_delivered_rows_and_nothing_else(outbox: Outbox) -> None:
    places = await one_of_each(outbox)
    assert await outbox.purge(older_than_seconds=3600, actor="retention") == 0
    assert await outbox.purge(older_than_seconds=-1, actor="retention") == 1
    left = {row.id for row in await outbox.rows(Filter())}
    assert left == set(places.values()) - {places[State.DELIVERED]}


async def test_purge_goes_through_many_pages(outbox: Outbox) -> None:
    await asyncio.gather(*(outbox.append(event()) for _ in range(1200)))
    await deliver(outbox, await claim(outbox, ask(2000)))
    assert await outbox.purge(older_than_seconds=-1, actor="retention") == 1200
    assert await outbox.rows(Filter()) == []


async def test_operator_actions_are_in_the_audit_newest_first(outbox: Outbox) -> None:
    [dead] = await bury(outbox)
    await outbox.replay(Filter(), actor="ada")
    await outbox.discard(Filter(state=State.PENDING), actor="grace")
    await outbox.set_paused(paused=True, actor="edsger")
    await outbox.set_paused(paused=False, actor="edsger")
    entries = await outbox.audit(10)
    assert [(entry["actor"], entry["action"]) for entry in entries] == [
        ("edsger", "resume"),
        ("edsger", "pause"),
        ("grace", "discard"),
        ("ada", "replay"),
    ]
    assert all(isinstance(entry["at"], int) for entry in entries)
    assert dead in str(entries[-1]["detail"])
    assert len(await outbox.audit(2)) == 2


async def test_the_audit_survives_a_restart(storage: Storage) -> None:
    async with storage.open() as outbox:
        await outbox.set_paused(paused=True, actor="ada")
    async with storage.open() as outbox:
        assert [entry["action"] for entry in await outbox.audit(10)] == ["pause"]


def lane(**changes: object) -> LaneRecord:
    wanted = {
        "state": "closed",
        "reason": "HTTP 503",
        "window": 7,
        "failures": 3,
        "reopens_in_seconds": 20.0,
        "since_ms": 1_795_000_000_000,
        "rate": 12.5,
        **changes,
    }
    return LaneRecord(**wanted)


async def test_a_new_lane_is_open(outbox: Outbox) -> None:
    record = await outbox.load_lane()
    assert record is None or (record.state, record.paused_by, record.revision) == ("open", None, 0)


async def test_a_saved_lane_is_loaded_as_it_was_saved(outbox: Outbox) -> None:
    saved = await outbox.save_lane(lane())
    loaded = await outbox.load_lane()
    assert loaded is not None
    assert (loaded.state, loaded.reason, loaded.window, loaded.failures) == (
        "closed",
        "HTTP 503",
        7,
        3,
    )
    assert (loaded.since_ms, loaded.rate) == (1_795_000_000_000, 12.5)
    assert 15 < loaded.reopens_in_seconds <= 20
    assert loaded.revision == saved.revision


async def test_the_lane_survives_a_restart(storage: Storage) -> None:
    async with storage.open() as outbox:
        await outbox.save_lane(lane())
        await outbox.set_paused(paused=True, actor="ada")
    async with storage.open() as outbox:
        loaded = await outbox.load_lane()
        assert loaded is not None
        assert (loaded.state, loaded.window, loaded.paused_by) == ("closed", 7, "ada")


async def test_every_save_raises_the_revision(outbox: Outbox) -> None:
    first = await outbox.save_lane(lane())
    second = await outbox.save_lane(lane(window=8))
    third = await outbox.set_paused(paused=True, actor="ada")
    assert first.revision < second.revision < third.revision


async def test_a_pause_keeps_the_lane_and_a_save_keeps_the_pause(outbox: Outbox) -> None:
    await outbox.save_lane(lane())
    paused = await outbox.set_paused(paused=True, actor="ada")
    assert (paused.paused_by, paused.state, paused.window) == ("ada", "closed", 7)
    saved = await outbox.save_lane(lane(state="open", paused_by=None))
    assert (saved.paused_by, saved.state) == ("ada", "open")
    resumed = await outbox.set_paused(paused=False, actor="grace")
    assert (resumed.paused_by, resumed.state) == (None, "open")


async def test_the_figures_show_the_lane(outbox: Outbox) -> None:
    await outbox.save_lane(lane())
    shown = (await outbox.stats()).lane
    assert shown is not None
    assert (shown.state, shown.reason) == ("closed", "HTTP 503")


async def test_a_scope_is_loaded_as_it_was_saved(outbox: Outbox) -> None:
    settings: dict[str, object] = {"a": {"b": [1, None, "ü\x00"]}, "c": 1.5}
    assert await outbox.load_scope("user", "u-1") is None
    await outbox.save_scope("user", "u-1", settings)
    await outbox.save_scope("organization", "u-1", {"other": True})
    assert await outbox.load_scope("user", "u-1") == settings
    await outbox.save_scope("user", "u-1", {})
    assert await outbox.load_scope("user", "u-1") == {}
    assert await outbox.load_scope("organization", "u-1") == {"other": True}


async def test_saving_a_scope_raises_the_revision(outbox: Outbox) -> None:
    before = outbox.scope_revision
    await outbox.save_scope("user", "u-1", {"a": 1})

    async def grown() -> bool:
        return outbox.scope_revision > before

    await eventually(grown)


async def test_scopes_survive_a_restart(storage: Storage) -> None:
    async with storage.open() as outbox:
        await outbox.save_scope("user", "u-1", {"a": 1})
    async with storage.open() as outbox:
        assert await outbox.load_scope("user", "u-1") == {"a": 1}
