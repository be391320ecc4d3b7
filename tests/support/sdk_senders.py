"""Inngest's own clients as processes that send to an address, and what they say of each event."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.fleet import plain_environment
from tests.support.node_packages import npm

SCRIPTS = Path(__file__).parent / "senders"
JAVASCRIPT_SDK = "inngest@4.24.0"


@dataclass
class Sender:
    """A client at work. `answers` has a line for each event that it is done with."""

    process: asyncio.subprocess.Process
    answers: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        """The ids that its calls returned."""
        return [one for answer in self.answers for one in answer.get("ids", ())]

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The calls that failed."""
        return [answer for answer in self.answers if "error" in answer]

    async def read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            if line.startswith(b"{"):
                self.answers.append(json.loads(line))
        await self.process.wait()


def javascript_sdk(folder: Path) -> Path:
    """A folder with the JavaScript client; skips where npm can't install it, except in CI."""
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    shutil.copy(SCRIPTS / "send.mjs", folder)
    quiet = ("--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
    npm(folder, "install", *quiet, JAVASCRIPT_SDK, may_fail=True)
    return folder


@contextlib.asynccontextmanager
async def sender(
    command: Sequence[str], folder: Path, environment: dict[str, str]
) -> AsyncIterator[Sender]:
    """The client `command`, killed if it is still at work at the end."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**plain_environment(), **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    one = Sender(process)
    reading = asyncio.create_task(one.read())
    try:
        yield one
    finally:
        if process.returncode is None:
            process.kill()
        await reading


def python_command(count: int, at_once: int) -> list[str]:
    return [sys.executable, str(SCRIPTS / "send.py"), str(count), str(at_once)]


def javascript_command(count: int, at_once: int) -> list[str]:
    return ["node", "send.mjs", str(count), str(at_once)]
