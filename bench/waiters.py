"""10,000 who wait, each for an event of their own, on long polls and on streams."""

from __future__ import annotations

import asyncio
import tempfile
import time
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
    cookie = await asyncio.to_thread(service.cookie, "/auth/dev-login")
    ids = await _post(service, cookie)
    idle = service.resident_mib()
    waiting = []
    for start in range(0, WAITERS, _WAVE):
        some = ids[start : start + _WAVE]
        opened = (_open(service, f"/api/events/{one}{suffix}", cookie) for one in some)
        waiting += await asyncio.gather(*opened)
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


async def _post(service: Server, cookie: str) -> list[str]:
    async with aiohttp.ClientSession(headers={"Cookie": cookie}) as http:

        async def post() -> str:
            body = {"documentName": "example"}
            async with http.post(f"{service.url}/api/route", json=body) as answer:
                return (await answer.json())["eventId"]

        ids: list[str] = []
        while len(ids) < WAITERS:
            ids += await asyncio.gather(*(post() for _ in range(_WAVE)))
        return ids


async def _open(
    service: Server, path: str, cookie: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address = urlsplit(service.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\nCookie: {cookie}\r\n\r\n"
    writer.write(head.encode())
    await writer.drain()
    return reader, writer
