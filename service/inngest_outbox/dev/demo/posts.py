"""The demo's front end: signed-in users who post at a steady pace and try again until answered.

Each post has an Idempotency-Key, so that trying again after a lost answer makes no second event.
`accepted` holds every id that was answered with 200.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

import aiohttp
import msgspec

USERS = ("ada", "bob", "eve", "kim")
POISON = "poison pill"
_RETRY_SECONDS = 0.1
_OK = 200


class _Answer(msgspec.Struct):
    event_id: str = msgspec.field(name="eventId")


class DemoPosts:
    """Posts for all users; made by `demo_posts`. `url` gives the service's present address."""

    def __init__(self, sessions: list[aiohttp.ClientSession], url: Callable[[], str]) -> None:
        self.accepted: set[str] = set()
        self._sessions = sessions
        self._url = url
        self._count = 0

    async def sign_in(self) -> None:
        """Sign every user in. Raises aiohttp.ClientError."""
        for name, session in zip(USERS, self._sessions, strict=True):
            body = {"email": f"{name}@example.com", "name": name.title(), "id": f"u-{name}"}
            async with session.post(f"{self._url()}/auth/dev-login", json=body) as answer:
                answer.raise_for_status()

    async def keep_posting(self, per_second: float) -> None:
        """Post until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(len(self._sessions)):
                group.create_task(self._post_steadily(number, per_second / len(self._sessions)))

    async def post(self, document_name: str, *, user: int = 0) -> str:
        """Post until it is answered with 200; the event's id."""
        self._count += 1
        headers = {"Idempotency-Key": f"demo-{self._count}"}
        body = {"documentName": document_name}
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, msgspec.DecodeError):
                async with self._sessions[user].post(
                    f"{self._url()}/api/route", json=body, headers=headers
                ) as answer:
                    text = await answer.read()
                    if answer.status == _OK:
                        event_id = msgspec.json.decode(text, type=_Answer).event_id
                        self.accepted.add(event_id)
                        return event_id
            await asyncio.sleep(_RETRY_SECONDS)

    async def _post_steadily(self, user: int, per_second: float) -> None:
        due = time.monotonic()
        while True:
            await self.post(f"reports/{self._count}.pdf", user=user)
            due = max(due + 1 / per_second, time.monotonic() - 1)
            await asyncio.sleep(max(0.0, due - time.monotonic()))


@contextlib.asynccontextmanager
async def demo_posts(url: Callable[[], str]) -> AsyncIterator[DemoPosts]:
    """The users, signed in."""
    async with contextlib.AsyncExitStack() as stack:
        sessions = [
            await stack.enter_async_context(
                aiohttp.ClientSession(
                    cookie_jar=aiohttp.CookieJar(unsafe=True),
                    timeout=aiohttp.ClientTimeout(total=5),
                )
            )
            for _ in USERS
        ]
        posts = DemoPosts(sessions, url)
        await posts.sign_in()
        yield posts
