"""Idempotency keys of POST /api/route, asked of the running service."""

from __future__ import annotations

import asyncio

import pytest
from multidict import CIMultiDict

from service.dev.fake_inngest.server import FakeInngest
from tests.support.fleet import Process
from tests.support.poster import GOOD, Poster

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_same_key_and_body_is_the_same_event(
    poster: Poster, inngest: FakeInngest
) -> None:
    _, first = await poster.post(Idempotency_Key="k-1")
    assert "Idempotent-Replayed" not in poster.headers
    status, retry = await poster.post(Idempotency_Key="k-1")
    assert (status, retry) == (200, first)
    assert poster.headers["Idempotent-Replayed"] == "true"
    assert poster.headers["Location"] == f"/api/events/{first['eventId']}"
    answers = await asyncio.gather(*(poster.post(Idempotency_Key="k-2") for _ in range(20)))
    assert len({body["eventId"] for _, body in answers}) == 1
    for body in (first, answers[0][1]):
        await inngest.ledger.wait_for_id(body["eventId"])
    assert inngest.ledger.times(first["eventId"]) == 1


async def test_a_key_is_its_users(poster: Poster, service: Process) -> None:
    _, mine = await poster.post(Idempotency_Key="k-1")
    other = Poster(service.url)
    await other.sign_in("somebody-else")
    status, theirs = await other.post({"documentName": "other"}, Idempotency_Key="k-1")
    await other.http.close()
    assert status == 200
    assert theirs["eventId"] != mine["eventId"]


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "ü"])
async def test_a_key_that_is_none_is_refused(poster: Poster, key: str) -> None:
    status, code = await poster.refused(json=GOOD, headers={"Idempotency-Key": key})
    assert (status, code) == (400, "idempotency_key_invalid")


async def test_two_keys_are_refused(poster: Poster) -> None:
    headers = CIMultiDict([("Idempotency-Key", "k-3"), ("Idempotency-Key", "k-4")])
    status, code = await poster.refused(json=GOOD, headers=headers)
    assert (status, code) == (400, "idempotency_key_invalid")
