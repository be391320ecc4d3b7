"""An idle system: from one post to its event's arrival.

Client, service and receiver are processes of their own on one clock. Ways in turns, each event
after a pause: through the outbox, through a handler that sends directly with aiohttp, and from here
straight to the receiver. The floor of the outbox is a direct send, one sync of the disk and one hop
to a thread and back; all are measured in the same turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import aiohttp
import uvloop

from bench import load, processes
from bench.rounds import Run

_PAUSE_SECONDS = 0.03
_WARM_UP = 5
_COMMIT_BYTES = 5 * 4096  # the pages that the commit of one post writes to the log


def measure(run: Run) -> None:
    uvloop.run(_measure(run, 40 if run.quick else 100))


async def _measure(run: Run, events: int) -> None:
    async with aiohttp.ClientSession() as session:
        with (
            tempfile.TemporaryDirectory(dir=run.folder) as name,
            processes.receiver() as receiver,
            processes.handlers(receiver.url) as handlers,
            processes.service(receiver.url, Path(name)) as service,
            _log(Path(name)) as log,
        ):
            cookie = await asyncio.to_thread(service.cookie, "/auth/dev-login")
            ways = {
                "outbox": (f"{service.url}/api/route", {"Cookie": cookie}),
                "direct": (f"{handlers.url}/direct", {}),
                "bare": (f"{receiver.url}/e/key", {}),
            }
            found: dict[str, list[float]] = {way: [] for way in (*ways, "sync", "hop")}
            for _ in range(events + _WARM_UP):
                for way, (url, headers) in ways.items():
                    found[way].append(await _time_to(receiver, session, url, headers))
                found["sync"].append(await asyncio.to_thread(_sync, log))
                found["hop"].append(await _hop())
    medians = {way: statistics.median(times[_WARM_UP:]) * 1e3 for way, times in found.items()}
    run.details["idle_ms"] = {way: round(ms, 3) for way, ms in medians.items()}
    run.say(", ".join(f"{way} {ms:.2f} ms" for way, ms in medians.items()))
    run.found("idle_to_direct", medians["outbox"] / medians["direct"])


@contextlib.contextmanager
def _log(folder: Path) -> Iterator[int]:
    """A file beside the outbox with room for a commit, as the log has."""
    with (folder / "log").open("wb", buffering=0) as file:
        file.write(bytes(_COMMIT_BYTES))
        os.fsync(file.fileno())
        yield file.fileno()


def _sync(log: int) -> float:
    """Seconds to write a commit over older bytes, and to sync it."""
    began = time.perf_counter()
    os.pwrite(log, os.urandom(_COMMIT_BYTES), 0)
    os.fdatasync(log)
    return time.perf_counter() - began


async def _hop() -> float:
    """Seconds to a thread and back."""
    began = time.perf_counter()
    await asyncio.to_thread(int)
    return time.perf_counter() - began


async def _time_to(
    receiver: processes.Server, session: aiohttp.ClientSession, url: str, headers: Mapping[str, str]
) -> float:
    """Seconds from the post to the arrival. All are idle before it."""
    sent = {"Content-Type": "application/json", **headers}
    before = await _arrivals(receiver, session)
    await asyncio.sleep(_PAUSE_SECONDS)
    began = time.monotonic()
    async with session.post(url, data=load.BODY.encode(), headers=sent) as answer:
        await answer.read()
        assert answer.status == 200, await answer.text()
    await asyncio.sleep(_PAUSE_SECONDS)
    after = await _arrivals(receiver, session)
    assert after["count"] == before["count"] + 1, (before, after)
    return float(after["last"]) - began


async def _arrivals(receiver: processes.Server, session: aiohttp.ClientSession) -> dict[str, float]:
    async with session.get(f"{receiver.url}/arrivals") as answer:
        found: dict[str, float] = await answer.json()
        return found
