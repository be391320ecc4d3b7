"""A small load generator: keep-alive connections over asyncio, each with one request at a time.

`python -m bench.generator closed URL CONNECTIONS SECONDS [COOKIE]` keeps every connection
busy (where wrk is missing), `burst` sends one request on each at the same moment, `paced` sends
`--rate` requests a second whatever the answers do. Prints the same figures as wrk's script.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import time
from collections import deque
from urllib.parse import urlsplit

import uvloop

BODY = '{"documentName": "example"}'
_WAVE = 256
_ANSWER_SECONDS = 60.0


class Connection(asyncio.Protocol):
    """One keep-alive connection; `ended` is called with the status and seconds of each answer."""

    def __init__(self, request: bytes, ended) -> None:
        self._request = request
        self._ended = ended
        self._began = 0.0
        self._buffer = b""
        self.transport: asyncio.Transport | None = None
        self.lost = False

    def connection_made(self, transport) -> None:
        self.transport = transport

    def connection_lost(self, exc) -> None:
        self.lost = True
        if self._began:
            self._ended(self, 0, time.perf_counter() - self._began)

    def send(self) -> None:
        self._began = time.perf_counter()
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if len(rest) < length:
            return
        self._buffer = b""
        seconds, self._began = time.perf_counter() - self._began, 0.0
        self._ended(self, int(head[9:12]), seconds)


class Generator:
    def __init__(self, url: str, cookie: str | None, body: bytes) -> None:
        address = urlsplit(url)
        self._host, self._port = address.hostname, address.port
        headers = [
            f"POST {address.path} HTTP/1.1",
            f"Host: {address.netloc}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            *([f"Cookie: {cookie}"] if cookie else []),
        ]
        self._request = "\r\n".join(headers).encode() + b"\r\n\r\n" + body
        self._latencies: list[float] = []
        self._refused = self._errors = 0
        self._until = 0.0
        self._idle: deque[Connection] = deque()
        self._finished = asyncio.Event()

    async def closed(self, connections: int, seconds: float) -> float:
        lines = await self._connect(connections, self._again)
        began = time.perf_counter()
        self._until = began + seconds
        for line in lines:
            line.send()
        await asyncio.sleep(seconds)
        return time.perf_counter() - began

    async def burst(self, connections: int) -> float:
        left = connections

        def ended(_: Connection, status: int, seconds: float) -> None:
            nonlocal left
            left -= 1
            self._note(status, seconds)
            if left == 0:
                self._finished.set()

        lines = await self._connect(connections, ended)
        began = time.perf_counter()
        for line in lines:
            line.send()
        async with asyncio.timeout(_ANSWER_SECONDS):
            await self._finished.wait()
        return time.perf_counter() - began

    async def paced(self, connections: int, seconds: float, rate: float) -> float:
        """Requests that find no idle connection are errors: the rate was not kept."""
        self._idle.extend(await self._connect(connections, self._rest))
        began = time.perf_counter()
        sent = 0
        while (now := time.perf_counter() - began) < seconds:
            while sent < now * rate:
                sent += 1
                if self._idle:
                    self._idle.popleft().send()
                else:
                    self._errors += 1
            await asyncio.sleep(0.001)
        return time.perf_counter() - began

    def result(self, seconds: float) -> dict[str, float]:
        found = sorted(self._latencies) or [0.0]
        return {
            "requests": len(self._latencies),
            "seconds": seconds,
            "errors": self._errors,
            "refused": self._refused,
            "p50": found[len(found) // 2] * 1e3,
            "p99": found[len(found) * 99 // 100] * 1e3,
            "longest": found[-1] * 1e3,
        }

    async def _connect(self, connections: int, ended) -> list[Connection]:
        loop = asyncio.get_running_loop()
        lines: list[Connection] = []
        for first in range(0, connections, _WAVE):
            made = (
                loop.create_connection(
                    lambda: Connection(self._request, ended), self._host, self._port
                )
                for _ in range(min(_WAVE, connections - first))
            )
            lines += [line for _, line in await asyncio.gather(*made)]
        return lines

    def _again(self, line: Connection, status: int, seconds: float) -> None:
        self._note(status, seconds)
        if not line.lost and time.perf_counter() < self._until:
            line.send()

    def _rest(self, line: Connection, status: int, seconds: float) -> None:
        self._note(status, seconds)
        if not line.lost:
            self._idle.append(line)

    def _note(self, status: int, seconds: float) -> None:
        self._latencies.append(seconds)
        self._errors += status == 0
        self._refused += not 200 <= status < 400 and status != 0


def allow_many_files() -> int:
    """Raise the limit of open files as far as this user may; the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


async def _main(options: argparse.Namespace) -> None:
    generator = Generator(options.url, options.cookie, options.body.encode())
    if options.way == "burst":
        seconds = await generator.burst(options.connections)
    elif options.way == "paced":
        seconds = await generator.paced(options.connections, options.seconds, options.rate)
    else:
        seconds = await generator.closed(options.connections, options.seconds)
    print("RESULT", json.dumps(generator.result(seconds)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=["closed", "burst", "paced"])
    parser.add_argument("url")
    parser.add_argument("connections", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("cookie", nargs="?")
    parser.add_argument("--rate", type=float, default=1000)
    parser.add_argument("--body", default=BODY)
    allow_many_files()
    uvloop.run(_main(parser.parse_args()))
