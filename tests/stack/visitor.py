"""A browser that signs in, uploads, posts at a steady rate, and remembers what each post got."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import aiohttp

from tests.stack.command import StackError

POST_SECONDS = 60  # a machine with other work is slow, which is no refusal
ASKED_AT_ONCE = 20
ASKED_TIMES = 5


@dataclass
class Posts:
    """What a steady stream of posts got. Moments are seconds of one clock."""

    accepted: list[str] = field(default_factory=list)
    refused: list[tuple[float, str]] = field(default_factory=list)
    slowest_seconds: float = 0.0

    @property
    def refused_seconds(self) -> float:
        """From the first refused post to the last one."""
        moments = [moment for moment, _ in self.refused]
        return max(moments) - min(moments) if moments else 0.0

    def reasons(self) -> str:
        """The refusals, each kind with its count."""
        kinds = [reason for _, reason in self.refused]
        return ", ".join(f"{kinds.count(kind)} times {kind}" for kind in sorted(set(kinds)))


class Visitor:
    """One signed-in user of the service at `url`."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self.http = http

    async def upload(self, s3_url: str, content: bytes, *, signed_bytes: int | None = None) -> str:
        """Upload a document by a form signed for so many bytes, as a page does; the name to post.

        Raises StackError when S3 refuses it, or would keep its answer from the page.
        """
        size = len(content) if signed_bytes is None else signed_bytes
        wanted = {"documentName": "a.bin", "contentType": "text/plain", "size": size}
        async with self.http.post("/api/uploads", json=wanted) as answer:
            answer.raise_for_status()
            signed = await answer.json()
        form = aiohttp.FormData(signed["upload"]["fields"])
        form.add_field("file", content, content_type=wanted["contentType"])
        # The form is signed, not its address: S3's port on this machine may be another one.
        url = f"{s3_url}/documents"
        page = {"Origin": "http://127.0.0.1:3000"}
        async with (
            aiohttp.ClientSession() as http,
            http.post(url, data=form, headers=page) as answer,
        ):
            if answer.status >= 300:
                raise StackError(f"the upload got {answer.status}: {await answer.text()}")
            if answer.headers.get("Access-Control-Allow-Origin") not in ("*", page["Origin"]):
                raise StackError("a browser would not show the upload's answer to the page")
        return str(signed["documentName"])

    async def post(self, name: str, key: str | None = None) -> str:
        """Post a document's name; the event's id. Raises StackError with the refusal."""
        headers = {"Idempotency-Key": key} if key else {}
        body = {"documentName": name}
        async with self.http.post("/api/route", json=body, headers=headers) as answer:
            if answer.status == 200:
                return str((await answer.json())["eventId"])
            code = (await answer.json())["code"] if answer.content_type.endswith("json") else ""
            raise StackError(f"{answer.status} {code}".strip())

    async def states(self, event_ids: Sequence[str]) -> list[str]:
        """The states of one's own events, as the API shows them; `404` for one that is gone."""
        at_once = asyncio.Semaphore(ASKED_AT_ONCE)

        async def ask(event_id: str) -> str:
            async with at_once:
                for _ in range(ASKED_TIMES):
                    async with self.http.get(f"/api/events/{event_id}") as answer:
                        if answer.status == 200:
                            return str((await answer.json())["state"])
                        if answer.status == 404:
                            break
                return str(answer.status)

        return await asyncio.gather(*map(ask, event_ids))

    @contextlib.asynccontextmanager
    async def posting(self, name: str, *, per_second: int) -> AsyncIterator[Posts]:
        """Post `name` at a steady rate inside the block, each time with a key of its own."""
        posts = Posts()
        tasks: set[asyncio.Task[None]] = set()

        async def pace() -> None:
            while True:
                task = asyncio.create_task(self._try(posts, name))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                await asyncio.sleep(1 / per_second)

        pacing = asyncio.create_task(pace())
        try:
            yield posts
        finally:
            pacing.cancel()
            await asyncio.gather(*tasks)

    async def _try(self, posts: Posts, name: str) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(POST_SECONDS):
                posts.accepted.append(await self.post(name, uuid.uuid4().hex))
        except StackError as error:
            posts.refused.append((began, str(error)))
        except (OSError, TimeoutError, aiohttp.ClientError) as error:
            posts.refused.append((began, type(error).__name__))
        posts.slowest_seconds = max(posts.slowest_seconds, time.monotonic() - began)


@contextlib.asynccontextmanager
async def visitor(url: str) -> AsyncIterator[Visitor]:
    """A visitor who has signed in. Each request makes a connection of its own."""
    async with aiohttp.ClientSession(
        url,
        cookie_jar=aiohttp.CookieJar(unsafe=True),
        connector=aiohttp.TCPConnector(force_close=True, limit=0),
    ) as http:
        async with http.post("/auth/dev-login", json={"email": "ada@example.com"}) as answer:
            answer.raise_for_status()
        yield Visitor(http)
