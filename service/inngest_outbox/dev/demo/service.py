"""The demo's service: a `serve` process of its own, on an outbox of its own, that can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from inngest_outbox.config.settings import Settings
from inngest_outbox.errors import ServiceError

START_SECONDS = 30.0
STOP_SECONDS = 30.0
_PACKAGE_FOLDER = Path(__file__).resolve().parents[3]


class DemoService:
    """Starts, kills and stops one service after another on the same outbox and port."""

    def __init__(self, folder: Path, inngest_url: str) -> None:
        self.outbox_url = f"sqlite:///{folder}/outbox.db"
        self.url = ""
        self._folder = folder
        self._log = folder / "service.log"
        self._inngest_url = inngest_url
        self._port = "0"
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start a service; returns when it listens. Raises ServiceError."""
        with self._log.open("ab") as log:
            self._process = process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "inngest_outbox",
                "serve",
                cwd=self._folder,
                env=self._environment(),
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        try:
            async with asyncio.timeout(START_SECONDS):
                self.url = await self._address(process)
        except TimeoutError as error:
            await self.kill()
            raise ServiceError("The demo's service did not start.") from error
        self._port = self.url.rpartition(":")[2]
        self._reading = asyncio.create_task(self._drain(process), name="demo-service-output")

    async def kill(self) -> None:
        """SIGKILL: no chance to tidy up."""
        if self._process and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        await self._stop_reading()

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL for one that does not end."""
        if self._process and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await self._process.wait()
        await self.kill()

    def _environment(self) -> dict[str, str]:
        """An environment without the caller's configuration, Inngest and S3."""
        ours = (*Settings.variables(), "OTEL_EXPORTER_OTLP_ENDPOINT")
        plain = {name: value for name, value in os.environ.items() if name not in ours}
        paths = [str(_PACKAGE_FOLDER), os.environ.get("PYTHONPATH", "")]
        return {
            **plain,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PORT": self._port,
            "OUTBOX_URL": self.outbox_url,
            "INNGEST_DEV": self._inngest_url,
            "OUTBOX_CONFIRM": "on",
            "AWS_S3_REGION": "eu-west-1",
            "AWS_S3_BUCKET": "documents",
            "OUTBOX_SEND_TIMEOUT": "2s",
            "LOG_LEVEL": "error",
        }

    async def _address(self, process: asyncio.subprocess.Process) -> str:
        assert process.stdout is not None  # noqa: S101
        async for line in process.stdout:
            if found := re.search(r"Listening on (http://\S+)", line.decode()):
                return found.group(1)
        said = self._log.read_text(encoding="utf-8", errors="replace").strip()
        raise ServiceError(f"The demo's service could not start: {said}")

    async def _drain(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101
        async for _ in process.stdout:
            pass

    async def _stop_reading(self) -> None:
        if self._reading:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)


@contextlib.asynccontextmanager
async def demo_service(folder: Path, inngest_url: str) -> AsyncIterator[DemoService]:
    """A running service that is stopped at the end."""
    service = DemoService(folder, inngest_url)
    try:
        await service.start()
        yield service
    finally:
        await service.stop()
