"""A running service that may open no more files says so, and goes on when it may."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path

import aiohttp

from inngest_outbox.dev.fake_inngest.faults import Reset
from inngest_outbox.dev.fake_inngest.server import FakeInngest
from tests.support.fleet import environment, running
from tests.support.poster import Poster
from tests.support.storage import eventually

ACCEPT = 'outbox_no_file_descriptors_total{purpose="accept"}'
SEND = 'outbox_no_file_descriptors_total{purpose="send"}'


def forbid_new_files(pid: int) -> None:
    """Lower the limit of open files to what is open.

    A file that is closed afterwards leaves room for another one, so this is repeated.
    """
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    lowest = min({*range(1024)} - {int(one.name) for one in Path(f"/proc/{pid}/fd").iterdir()})
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest, hard))


async def counted(http: aiohttp.ClientSession, url: str, metric: str) -> bool:
    async with http.get(f"{url}/metrics") as answer:
        return f"\n{metric} " in await answer.text()


async def unanswered(
    url: str, pid: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
    """A request on a new connection that waits; None when it is answered after all."""
    forbid_new_files(pid)
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
    answer = asyncio.create_task(reader.readline())
    done, _ = await asyncio.wait([answer], timeout=1)
    answer.cancel()
    if done:
        writer.close()
        return None
    return reader, writer


async def test_a_shortage_of_file_descriptors_is_logged_and_counted_and_loses_nothing(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    settings = environment(f"sqlite:///{tmp_path / 'outbox.db'}", inngest_api.url)
    async with running("serve", environment=settings) as process:
        poster, fresh = Poster(process.url), Poster(process.url)
        async with poster.http, fresh.http:
            await poster.sign_in("u-1")
            pid = process.process.pid
            was = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            # No connection to Inngest lasts, so each request needs a new file.
            inngest_api.faults.add(Reset(), times=None)
            forbid_new_files(pid)
            status, answer = await poster.post()
            assert status == 200
            for metric in (ACCEPT, SEND):

                async def seen(metric: str = metric) -> bool:
                    forbid_new_files(pid)
                    return await counted(poster.http, process.url, metric)

                await eventually(seen)
            await process.said("no_file_descriptors")
            reader, waiting = await eventually(lambda: unanswered(process.url, pid))
            inngest_api.faults.clear()
            resource.prlimit(pid, resource.RLIMIT_NOFILE, was)
            await process.said("file_descriptors_are_back")
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
            waiting.close()
            await inngest_api.ledger.wait_for_id(answer["eventId"], timeout_seconds=60)
            await fresh.sign_in("u-2")
    assert '"level":"info"' not in "".join(process.lines)  # by the LOG_LEVEL of `environment`
