"""Service processes on one outbox: started, posted to, killed by their id."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import aiohttp

from tests.support.judged_command import judge_line
from tests.support.judges import Judge
from tests.support.preloaded import PreloadedProcess, can_start, start
from tests.support.storage import eventually

ROOT = Path(__file__).parents[2]
# Four processes start in 30 s on a machine that has ten others to run.
START_SECONDS = 100.0
STOP_SECONDS = 180.0
# What a developer's variables begin with that would change what is tested.
OURS = ("AWS_", "INNGEST_", "OTEL_", "OUTBOX_", "SESSION_", "NEXTAUTH_", "AUTH_", "OIDC_", "LOG_")
OURS += ("WEB_",)

_PASS = """
import os, sys
handles = sys.argv[1].split(",")
for place, handle in enumerate(handles, 3):
    os.dup2(int(handle), place)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(handles))}
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


class Process:
    def __init__(self, process: asyncio.subprocess.Process | PreloadedProcess) -> None:
        self.process = process
        self.lines: list[str] = []
        self.url = ""
        self.stopped_with = 0  # the exit code of a stop that no test has asked for
        self._said = asyncio.Event()

    async def said(self, pattern: str, *, times: int = 1) -> re.Match[str]:
        """The line that matches for the `times`th time, once it is printed."""
        async with asyncio.timeout(START_SECONDS):
            while True:
                matches = (re.search(pattern, line) for line in self.lines)
                if len(found := [match for match in matches if match]) >= times:
                    return found[times - 1]
                assert self.process.returncode is None, "".join(self.lines)
                self._said.clear()
                await self._said.wait()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    async def ended(self) -> int:
        async with asyncio.timeout(STOP_SECONDS):
            return await self.process.wait()

    async def stop(self) -> int:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        return await self.ended()

    async def read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(line.decode())
            self._said.set()
        await self.process.wait()
        self._said.set()


@contextlib.asynccontextmanager
async def running(
    *command: str,
    environment: Mapping[str, str],
    ready: str | None = r"Listening on (http://\S+)",
    passed: Sequence[socket.socket] = (),
) -> AsyncIterator[Process]:
    """`python -m inngest_outbox <command>` until the block ends; killed if it does not stop.

    It runs in a folder of its own, where no `.env` of a developer's changes what is tested. `ready`
    is the line that ends the start; None waits for none. It gets the sockets `passed` as systemd
    gives them.
    """
    with tempfile.TemporaryDirectory(prefix="outbox-test-") as folder:
        async with attended(await _started(command, environment, folder, passed), ready) as process:
            yield process
        assert process.stopped_with == 0
        for line in process.lines:
            judge_line(line.removesuffix("\n"))
        Judge.look_at(process.lines, is_json=environment.get("LOG_FORMAT") == "json")


@contextlib.asynccontextmanager
async def attended(
    started: asyncio.subprocess.Process | PreloadedProcess, ready: str | None
) -> AsyncIterator[Process]:
    """This process until the block ends, from the line that ends its start."""
    process = Process(started)
    reading = asyncio.create_task(process.read())
    try:
        if ready is not None:
            found = await process.said(ready)
            process.url = found.group(1) if found.re.groups else ""
        yield process
    finally:
        if started.returncode is None:
            with contextlib.suppress(TimeoutError):
                process.stopped_with = await process.stop()
        if started.returncode is None:
            process.kill()
            await process.ended()
        await reading


async def _started(
    command: tuple[str, ...],
    environment: Mapping[str, str],
    folder: str,
    passed: Sequence[socket.socket],
) -> asyncio.subprocess.Process | PreloadedProcess:
    variables = {**plain_environment(), "PYTHONPATH": f"{ROOT}:{ROOT}/service", **environment}
    if not passed and can_start(variables):
        return await start(command, variables, folder)
    handles = [one.fileno() for one in passed]
    given = ["-c", _PASS, ",".join(map(str, handles))] if handles else []
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *given,
        "-m",
        "inngest_outbox",
        *command,
        cwd=folder,
        env=variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        pass_fds=handles,
    )


def plain_environment() -> dict[str, str]:
    """This process's environment without a developer's variables of the service."""
    return {name: value for name, value in os.environ.items() if not name.startswith(OURS)}


def environment(outbox_url: str, inngest_url: str, **changes: str) -> dict[str, str]:
    return {
        "PORT": "0",
        "OUTBOX_URL": outbox_url,
        "AWS_S3_REGION": "eu-west-1",
        "AWS_S3_BUCKET": "documents",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "SESSION_SECRET": "a-secret-of-the-tests-only",
        "INNGEST_DEV": inngest_url,
        "OUTBOX_SEND_TIMEOUT": "2s",
        "OUTBOX_DRAIN_SECONDS": "2s",
        "LOG_LEVEL": "warning",
        **changes,
    }


class Client:
    """Posts to several processes and remembers what was accepted."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.accepted: list[str] = []
        self.refused: list[int] = []
        self.broken = 0

    async def sign_in(self, url: str) -> None:
        """Tries again until the service listens, and while the outbox can't be asked."""

        async def status() -> int:
            body = {"email": "ada@example.com", "id": "u-1"}
            with contextlib.suppress(aiohttp.ClientConnectorError):
                async with self.session.post(f"{url}/auth/dev-login", json=body) as answer:
                    return answer.status
            return 0

        await eventually(status, lambda status: status == 200, within_seconds=START_SECONDS)

    async def post(self, url: str) -> int:
        """One post; 0 when the connection broke."""
        try:
            async with self.session.post(
                f"{url}/api/route", json={"documentName": "example"}
            ) as answer:
                body = await answer.json()
                if answer.status == 200:
                    self.accepted.append(body["eventId"])
                else:
                    self.refused.append(answer.status)
                return answer.status
        except (aiohttp.ClientError, TimeoutError):
            self.broken += 1
            return 0

    async def post_on_a_new_connection(self, url: str) -> int:
        """So that any of the processes that share the address may take it."""
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(
            cookie_jar=self.session.cookie_jar, connector=connector
        ) as session:
            client = Client(session)
            status = await client.post(url)
        self.accepted += client.accepted
        return status

    async def save_settings(self, url: str, settings: dict[str, object]) -> None:
        async with self.session.put(f"{url}/api/settings", json=settings) as answer:
            assert answer.status == 200, await answer.text()

    async def metrics(self, url: str) -> dict[str, float]:
        """The figures by their names and labels."""
        async with self.session.get(f"{url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line[:1] != "#")
        return {name: float(value) for name, value in pairs}

    async def figures(self, url: str) -> str:
        """What an operator's page shows first of the figures as they change."""
        async with self.session.get(f"{url}/outbox/live") as answer:
            assert answer.status == 200, await answer.text()
            return (await answer.content.readuntil(b"\n\n")).decode()

    async def readiness(self, url: str) -> tuple[int, dict[str, object]]:
        async with self.session.get(f"{url}/readyz") as answer:
            return answer.status, await answer.json()


@contextlib.asynccontextmanager
async def client() -> AsyncIterator[Client]:
    # One secret signs for all ports of this host, so one cookie serves every process.
    jar = aiohttp.CookieJar(unsafe=True)
    timeout = aiohttp.ClientTimeout(total=STOP_SECONDS)
    async with aiohttp.ClientSession(cookie_jar=jar, timeout=timeout) as session:
        yield Client(session)
