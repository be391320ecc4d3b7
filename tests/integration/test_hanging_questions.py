"""Sessions of the front end while Inngest hangs when it is asked for runs."""

from __future__ import annotations

import asyncio
import functools
import secrets
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web

from inngest_outbox.bootstrap import web_part
from inngest_outbox.identity.user import User
from inngest_outbox.outbox.event import Event
from inngest_outbox.outbox.model import Filter, State
from inngest_outbox.web.events.followed_event import FollowPolicy
from tests.support.service_client import service_client
from tests.support.storage import eventually

ADA = "ada@example.com"
EVENTS = 20


class Neighbours:
    """An Inngest that takes every event and answers no question, and a front end.

    `questions` wait now; `questions_then` waited when the front end was asked last.
    """

    def __init__(self) -> None:
        self.questions = self.questions_then = 0

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes([web.post("/e/{key}", self.take)])
        app.add_routes([web.get("/v1/events/{path:.*}", self.hang)])
        app.add_routes([web.get("/api/auth/session", self.session)])
        return app

    async def take(self, request: web.Request) -> web.Response:
        ids = [f"id-{number}" for number, _ in enumerate(await request.json())]
        return web.json_response({"ids": ids, "status": 200})

    async def hang(self, request: web.Request) -> web.Response:
        del request
        self.questions += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.questions -= 1
        raise AssertionError

    async def session(self, request: web.Request) -> web.Response:
        del request
        self.questions_then = self.questions
        answer = web.json_response({"user": {"id": "u-1"}})
        answer.force_close()  # a connection that is kept is no measure: it is used beyond limits
        return answer


async def test_a_session_of_the_front_end_waits_for_no_question_to_inngest(
    tmp_path: Path, aiohttp_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = functools.partial(FollowPolicy, first_ask_seconds=90.0)  # none is given up soon
    monkeypatch.setattr(web_part, "FollowPolicy", patient)
    neighbours = Neighbours()
    inngest, front = [await aiohttp_server(neighbours.app()) for _ in range(2)]
    given = {
        "INNGEST_DEV": str(inngest.make_url("")).rstrip("/"),
        "NEXTAUTH_URL": str(front.make_url("")),
    }
    async with (
        service_client(tmp_path, **given) as (service, client),
        ClientSession() as other,
    ):
        owner = User("dev", ADA).owner
        for number in range(EVENTS):
            event = Event(f"e-{number}", "a/b", owner, ADA, 1_795_559_419_447, b'{"name":"a/b"}')
            await service.outbox.intake.append(event)
        delivered = Filter(state=State.DELIVERED)  # of the others Inngest is not asked at once
        await eventually(
            lambda: service.outbox.inspector.rows(delivered), lambda rows: len(rows) == EVENTS
        )
        await client.post("/auth/dev-login", json={"email": ADA})
        waiting = [
            asyncio.create_task(client.get(f"/api/events/e-{number}?wait=60"))
            for number in range(EVENTS)
        ]

        async def questions_meanwhile() -> int:
            cookie = {"Cookie": f"next-auth.session-token={secrets.token_hex(16)}"}
            await other.get(client.make_url("/auth/session"), headers=cookie)
            return neighbours.questions_then

        await eventually(questions_meanwhile, lambda questions: questions == EVENTS)
        for task in waiting:
            task.cancel()
