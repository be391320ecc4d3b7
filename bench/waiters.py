"""10,000 who wait, each for an event of their own, on long polls and on streams.

They are users of several peers: each user, and each peer, has a share of the waits.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import uvloop

from bench import processes
from bench.generator import allow_many_files
from bench.processes import Server
from bench.rounds import Run

WAITERS = 10_000
_SPARE_FILES = 500
_WAVE = 500
_USERS = 4
_PEERS = ("127.0.0.1", "127.0.0.2")
_AWAY = "http://127.0.0.1:9"  # nothing listens there: the events go on waiting
_WAYS = {"long polls": "?wait=60", "streams": "/stream"}


def measure(run: Run) -> None:
    if allow_many_files() < WAITERS + _SPARE_FILES:
        run.say(f"ulimit -n is below {WAITERS + _SPARE_FILES}: not measured")
        return
    found = {}
    for way, suffix in _WAYS.items():
        with (
            tempfile.TemporaryDirectory(dir=run.folder) as name,
            processes.service(_AWAY, Path(name)) as service,
        ):
            found[way] = uvloop.run(_wait(run, service, way, suffix))
    run.details["waiters"] = found
    run.found("memory_waiters", max(one["mib_above_idle"] for one in found.values()))


async def _wait(run: Run, service: Server, way: str, suffix: str) -> dict[str, float]:
    events = [one for user in range(_USERS) for one in await _post(service, f"u-{user}")]
    idle = service.resident_mib()
    waiting = []
    for start in range(0, WAITERS, _WAVE):
        peer = _PEERS[start // _WAVE % len(_PEERS)]
        some = events[start : start + _WAVE]
        waiting += await asyncio.gather(
            *(_open(service, f"/api/events/{id_}{suffix}", cookie, peer) for id_, cookie in some)
        )
    if suffix == "/stream":
        await asyncio.gather(*(reader.readuntil(b"data: ") for reader, _ in waiting))
    cpu, began = service.cpu_seconds(), time.perf_counter()
    await asyncio.sleep(5)
    share = (service.cpu_seconds() - cpu) / (time.perf_counter() - began)
    above = service.resident_mib() - idle
    run.say(f"{WAITERS:,} {way}: {above:.0f} MiB above idle, {share:.2f} of a core")
    for _, writer in waiting:
        writer.transport.abort()
    return {"mib_above_idle": round(above, 1), "cores": round(share, 3)}


async def _post(service: Server, user: str) -> list[tuple[str, str]]:
    """The ids of a user's share of the events, each with the user's cookie."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        who = {"id": user, "email": f"{user}@example.com"}
        async with http.post(f"{service.url}/auth/dev-login", json=who) as answer:
            assert answer.status == HTTPStatus.OK
            cookie = "; ".join(f"{name}={one.value}" for name, one in answer.cookies.items())

        async def post() -> tuple[str, str]:
            body = {"documentName": "example"}
            async with http.post(f"{service.url}/api/route", json=body) as answer:
                return (await answer.json())["eventId"], cookie

        found: list[tuple[str, str]] = []
        while len(found) < WAITERS // _USERS:
            found += await asyncio.gather(*(post() for _ in range(_WAVE)))
        return found


async def _open(
    service: Server, path: str, cookie: str, peer: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address = urlsplit(service.url)
    reader, writer = await asyncio.open_connection(
        address.hostname, address.port, local_addr=(peer, 0)
    )
    head = f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\nCookie: {cookie}\r\n\r\n"
    writer.write(head.encode())
    await writer.drain()
    return reader, writer
