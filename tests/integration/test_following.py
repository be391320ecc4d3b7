"""Waiting for an event: long polls and streams."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import msgspec
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from inngest_outbox.outbox.event import Meta
from inngest_outbox.outbox.model import ClaimRequest, Settlement, State
from tests.support.followed_events import QUICK, event, followed_events, run
from tests.support.storage import PATIENCE_SECONDS, eventually

ERROR = {"name": "E", "message": "no", "stack": "at /srv"}


@pytest.fixture
async def followed(tmp_path):
    policy = replace(QUICK, max_wait_seconds=3600)  # longer than any patience
    async with followed_events(tmp_path, policy=policy) as made:
        await made.outbox.intake.append(event())
        yield made


@pytest.fixture
async def client(followed, aiohttp_client):
    return await aiohttp_client(followed.app)


async def deliver(followed):
    batch = await followed.outbox.queue.claim(ClaimRequest(1, 1000, 30))
    await followed.outbox.queue.settle(Settlement(batch.claim, delivered=[batch.entries[0].seq]))


def show_runs(followed, *runs):
    followed.runs.runs_of = {"inngest-e-1": runs}


async def views_of(answer):
    async for line in answer.content:
        if line.startswith(b"data: "):
            yield json.loads(line[6:])


async def test_a_long_poll_answers_when_the_event_changes_and_at_once_when_it_has(followed, client):
    known = (await client.get("/api/events/e-1")).headers["ETag"]
    headers = {"If-None-Match": f'"older", {known}'}
    unchanged = await client.get("/api/events/e-1?wait=1", headers=headers)
    assert (unchanged.status, await unchanged.read()) == (304, b"")
    knows_all, waiting = [
        asyncio.create_task(client.get("/api/events/e-1?wait=3600", headers=given))
        for given in ({"If-None-Match": "*"}, {})
    ]
    await eventually(lambda: followed.follower.followers == 2)
    await deliver(followed)
    async with asyncio.timeout(PATIENCE_SECONDS):
        view = await (await waiting).json()
        old = await (await client.get("/api/events/e-1?wait=3600", headers=headers)).json()
    assert view["state"] in ("delivering", "delivered")
    assert (view["final"], old["state"], knows_all.done()) == (False, "delivered", False)
    followed.follower.close()
    assert (await knows_all).status == 304


async def test_one_user_has_a_share_of_the_followers_and_another_has_room(tmp_path, aiohttp_client):
    policy = replace(QUICK, max_followers=4, max_followers_per_owner=2, max_wait_seconds=3600)
    async with followed_events(tmp_path, policy=policy) as followed:
        await followed.outbox.intake.append(event(), key=None)
        await followed.outbox.intake.append(event("e-2", "u-2"), key=None)
        client = await aiohttp_client(followed.app)
        ada, bob, kim = ({"X-User": user} for user in ("u-1", "u-2", "kim"))
        assert (await client.get("/api/events/e-1", headers=kim)).status == 200
        first = await client.get("/api/events/e-1/stream", headers=ada)
        waiting = asyncio.create_task(client.get("/api/events/e-1?wait=3600", headers=ada))
        await eventually(lambda: followed.follower.followers == 2)
        refused = await client.get("/api/events/e-1/stream", headers=ada)
        assert (first.status, refused.status) == (200, 503)
        told = await refused.json()
        assert told["error"] == "Too many streams are open. Try again shortly."
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert (await client.get("/api/events/e-1?wait=3600", headers=ada)).status == 200
        other = await client.get("/api/events/e-1/stream", headers=kim)  # of an operator's share
        assert other.status == 200
        of_bob = [await client.get("/api/events/e-2/stream", headers=bob) for _ in range(2)]
        assert [one.status for one in of_bob] == [200, 503]  # one is too many for all
        for one in (first, of_bob[0]):
            one.close()
        await eventually(lambda: followed.follower.followers == 2)
        again = [await client.get("/api/events/e-1/stream", headers=ada) for _ in range(2)]
        assert [one.status for one in again] == [200, 503]
        followed.follower.close()
        assert (await waiting).status == 200


async def test_a_tag_is_known_among_others_and_where_a_compressing_proxy_made_it_weak(client):
    known = (await client.get("/api/events/e-1")).headers["ETag"]
    assert len(known) == 26  # 96 bits in quotes
    for told, status in (
        (f"W/{known}", 304),
        (f'"older", {known}', 304),
        (f'W/"older",W/{known}', 304),
        ("*", 304),
        ('"older"', 200),
    ):
        answer = await client.get("/api/events/e-1", headers={"If-None-Match": told})
        assert (answer.status, answer.headers["ETag"]) == (status, known), told


async def test_a_wait_that_makes_no_sense_is_refused(client):
    for wait in ("3601", "-1", "soon", "1.5", "٣", ""):
        answer = await client.get(f"/api/events/e-1?wait={wait}")
        told = await answer.json()
        assert (answer.status, told["code"]) == (400, "invalid_field"), wait
        assert told["error"] == "wait is a whole number from 0 to 3600."
    assert (await client.get("/api/events/e-1?wait=0")).status == 200


async def test_a_stream_follows_an_event_to_its_runs_end(followed, client):
    seen = []
    async with client.get("/api/events/e-1/stream") as answer, asyncio.timeout(PATIENCE_SECONDS):
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        async for view in views_of(answer):
            status = view["run"] and view["run"]["status"]
            seen.append((view["state"], status))
            if seen[-1] == ("pending", None):
                await deliver(followed)
            elif seen[-1] == ("delivered", None):
                show_runs(followed, run("RUNNING"))
            elif seen[-1] == ("delivered", "running"):
                show_runs(followed, run("COMPLETED", {"pages": 12}))
    assert [one for one in seen if one[0] != "delivering"] == [
        ("pending", None),
        ("delivered", None),
        ("delivered", "running"),
        ("delivered", "completed"),
    ]
    assert view["run"]["output"] == {"pages": 12}
    assert view["final"] is True


async def test_what_changes_while_a_stream_is_written_is_told_at_once_and_its_loss_is_no_fault(
    tmp_path, aiohttp_client, monkeypatch
):
    seldom = replace(QUICK, look_seconds=3600.0, beat_seconds=3600.0)
    write = web.StreamResponse.write
    async with followed_events(tmp_path, with_runs=False, policy=seldom) as followed:
        await followed.outbox.intake.append(event())
        row = await followed.outbox.intake.find("e-1")
        dead = msgspec.structs.replace(row, state=State.DEAD)

        async def changing(answer, data):
            await write(answer, data)
            followed.follower.end(followed.follower.begin(dead, "u-1"), "u-1")
            if b"dead" in data:
                raise ConnectionResetError

        monkeypatch.setattr(web.StreamResponse, "write", changing)
        client = await aiohttp_client(followed.app)
        views = await follow_to_the_end(client)
    assert [view["state"] for view in views] == ["pending", "dead"]


async def follow_to_the_end(client, event_id="e-1"):
    url = f"/api/events/{event_id}/stream"
    async with client.get(url) as answer, asyncio.timeout(PATIENCE_SECONDS):
        return [view async for view in views_of(answer)]


async def test_a_second_function_may_begin_shortly_after_the_first_has_ended(
    tmp_path, aiohttp_client
):
    policy = replace(QUICK, grace_seconds=0.3)
    async with followed_events(tmp_path, policy=policy) as followed:
        in_branch = msgspec.structs.replace(event(), meta=Meta(environment="branch"))
        await followed.outbox.intake.append(in_branch)
        await deliver(followed)
        show_runs(followed, run("COMPLETED", {"n": 1}))
        client = await aiohttp_client(followed.app)
        first = await (await client.get("/api/events/e-1")).json()
        assert (first["run"]["status"], first["final"]) == ("completed", False)
        show_runs(followed, run("COMPLETED", {"n": 1}), run("COMPLETED", {"n": 2}, "01RUNB"))
        [*_, last] = await follow_to_the_end(client)
    assert [(one["output"], one["url"]) for one in last["otherRuns"]] == [
        ({"n": 2}, "http://inngest.test/branch/01RUNB")
    ]
    assert followed.runs.environments == {"branch"}
    assert followed.runs.asked_for == {"01RUN": 1, "01RUNB": 1}  # what has ended stays known


async def test_an_event_without_a_run_says_that_another_had_its_id(tmp_path, aiohttp_client):
    policy = replace(QUICK, no_run_seconds=0.3)
    async with followed_events(tmp_path, policy=policy) as followed:
        for event_id, wire_id in (("e-1", "order-1"), ("e-2", "order-2")):
            meta = Meta(wire_id, environment="branch")
            chosen = msgspec.structs.replace(event(event_id), meta=meta)
            await followed.outbox.intake.append(chosen)
            await deliver(followed)
        followed.runs.used[event().name, "order-1"] = "01OTHER"
        client = await aiohttp_client(followed.app)
        with capture_logs() as logs:
            used = await follow_to_the_end(client)
            [*_, other] = await follow_to_the_end(client, "e-2")
    assert [(one["event"], one["event_id"], one["used_by"]) for one in logs] == [
        ("event_id_used_before", "e-1", "01OTHER")
    ]
    told = [(view["noRun"], view["idUsed"]) for view in used]
    assert told[-1] == (True, True)
    assert set(told[:-1]) <= {(False, False)}
    assert (other["noRun"], other["idUsed"]) == (True, False)
    assert followed.runs.environments == {"branch"}


async def test_the_stack_of_a_failed_run_is_for_operators_only(followed, client):
    await deliver(followed)
    failed = [run("FAILED", {"error": ERROR}, one) for one in ("01RUN", "01RUNB")]
    show_runs(followed, *failed, run("COMPLETED", {"pages": 12}, "01RUNC"))
    [listed] = (await (await client.get("/api/events")).json())["events"]
    assert listed["final"] is False  # its runs are not asked for
    mine = await (await client.get("/api/events/e-1")).json()
    assert mine["run"]["output"] == {"name": "E", "message": "no"}
    assert mine["run"]["url"] == "http://inngest.test/own/01RUN"
    for way in ("", "?wait=1", "/stream"):
        assert "/srv" not in await (await client.get(f"/api/events/e-1{way}")).text()
    answer = await client.get("/api/events/e-1", headers={"X-User": "kim"})
    shown = await answer.json()
    outputs = [one["output"] for one in (shown["run"], *shown["otherRuns"])]
    assert outputs == [{"name": "E", "message": "no", "stack": "at /srv"}] * 2 + [{"pages": 12}]


async def test_a_stream_has_its_request_id_and_is_held_up_by_no_proxy(client):
    tag = (await client.get("/api/events/e-1")).headers["ETag"].strip('"')
    headers = {"X-Request-Id": "mine-1", "Last-Event-ID": tag}  # it may still change
    async with client.get("/api/events/e-1/stream", headers=headers) as answer:
        assert answer.headers["X-Request-Id"] == "mine-1"
        assert answer.headers["Cache-Control"] == "no-store, no-transform"
        assert answer.headers["X-Accel-Buffering"] == "no"
        first = (await answer.content.readuntil(b"\n\n")).decode()
    assert first.startswith(f"retry: 1000\nid: {tag}\ndata: {{")


async def test_a_browser_that_connects_again_after_the_end_is_told_to_stop(followed, client):
    await deliver(followed)
    show_runs(followed, run("FAILED", {"error": ERROR}))
    tag = (await client.get("/api/events/e-1")).headers["ETag"].strip('"')
    url = "/api/events/e-1/stream"
    assert (await client.get(url, headers={"Last-Event-ID": tag})).status == 204
    async with asyncio.timeout(PATIENCE_SECONDS):
        known = {"If-None-Match": f'"{tag}"'}
        assert (await client.get("/api/events/e-1?wait=3600", headers=known)).status == 304
    async with client.get(url, headers={"Last-Event-ID": "one before"}) as answer:
        assert [view["final"] async for view in views_of(answer)] == [True]
    await eventually(lambda: followed.follower.followers == 0)


async def test_an_outage_of_inngest_is_waited_out(followed, client):
    followed.runs.runs_of = None
    await deliver(followed)
    known = (await client.get("/api/events/e-1")).headers["ETag"]
    waiting = [
        asyncio.create_task(client.get("/api/events/e-1?wait=3600", headers={"If-None-Match": tag}))
        for tag in (known, '"told-by-another-process"')
    ]
    before = followed.runs.asked
    await eventually(lambda: followed.runs.asked > before + 2)
    assert not any(one.done() for one in waiting)
    show_runs(followed, run("COMPLETED", {}))
    async with asyncio.timeout(PATIENCE_SECONDS):
        for one in waiting:
            assert (await (await one).json())["run"]["status"] == "completed"


async def test_who_waits_for_an_event_that_is_removed_is_told(followed, client):
    waiting = asyncio.create_task(client.get("/api/events/e-1?wait=3600"))
    async with client.get("/api/events/e-1/stream") as stream, asyncio.timeout(PATIENCE_SECONDS):
        views = views_of(stream)
        await anext(views)
        await eventually(lambda: followed.follower.followers == 2)
        await client.delete("/api/events/e-1")
        assert [view async for view in views] == []
        answer = await waiting
    told = {"status": "error", "code": "not_found", "error": "There is no such event."}
    assert (answer.status, await answer.json()) == (404, told)


async def test_an_event_that_is_removed_while_its_runs_are_asked_for_is_not_there(followed, client):
    async def removed(*_, **__):
        followed.follower._followed["e-1"].vanish()
        return ()

    await deliver(followed)
    followed.runs.run_ids = removed
    assert (await client.get("/api/events/e-1?wait=3600")).status == 404


async def test_a_stream_ends_after_its_time_so_that_its_client_connects_again(
    tmp_path, aiohttp_client
):
    async with followed_events(tmp_path, policy=replace(QUICK, stream_seconds=0.1)) as followed:
        await followed.outbox.intake.append(event())
        client = await aiohttp_client(followed.app)
        views = await follow_to_the_end(client)
    assert [view["final"] for view in views] == [False]


async def test_a_silent_stream_is_kept_alive(client):
    async with client.get("/api/events/e-1/stream") as answer, asyncio.timeout(PATIENCE_SECONDS):
        async for line in answer.content:
            if line == b":\n":
                return
    pytest.fail("no comment came")
