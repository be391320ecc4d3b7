"""The fake Inngest and a real one as processes, with workers and a service beside them."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from tests.real_inngest.functions import functions
from tests.real_inngest.inngest_handle import SERVICE_KEY, new_key
from tests.support.confirmed_delivery import SIGNING_KEY, self_hosted_service
from tests.support.fleet import ROOT
from tests.support.free_port import free_port
from tests.support.inngest_process import EVENT_KEY, real_command
from tests.support.node_packages import with_packages

_SECONDS = 180.0
NO_RUN_SECONDS = 10
_TYPES = """
types:
  - {name: py/wanted, path: /api/wanted, body: {type: object}, expects_run: true}
"""
JAVASCRIPT = {"js3": "inngest3@npm:inngest@3.54.0", "js4": "inngest4@npm:inngest@4.24.0"}


class Server:
    """An Inngest and what runs beside it, processes that `close` ends."""

    def __init__(self, folder: Path, command: Sequence[str]) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.outbox_url = f"sqlite:///{folder / 'outbox.db'}"
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._start([*command, "--host=127.0.0.1", f"--port={port}"])
        self._wait(lambda: self._ask("/v1/events?limit=1") is not None)

    def need(self, app: str) -> None:
        """Have this app's functions, from now on."""

    @functools.cached_property
    def service_url(self) -> str:
        """A service that delivers here."""
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        known = {"PORT": str(port), "OUTBOX_EVENT_KEYS": f"suite:{SERVICE_KEY}"}
        known["OUTBOX_NO_RUN_AFTER"] = f"{NO_RUN_SECONDS}s"
        types = self._folder / "types.yaml"
        types.write_text(_TYPES)
        known["EVENT_TYPES_FILE"] = str(types)
        command = [sys.executable, "-m", "inngest_outbox", "serve"]
        self._start(command, **self_hosted_service(self.outbox_url, self.url, **known))
        self._wait(lambda: _opened(urllib.request.Request(f"{url}/healthz")) is not None)
        return url

    def close(self) -> None:
        """Kill all."""
        for one in reversed(self._processes):
            one.send_signal(signal.SIGKILL)
            one.wait()

    def _start(self, command: Sequence[str], folder: Path = ROOT, **more: str) -> None:
        others = {name: value for name, value in os.environ.items() if "INNGEST" not in name}
        with (self._folder / "log").open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    command, cwd=folder, env={**others, **more}, stdout=log, stderr=log
                )
            )

    def _ask(self, path: str) -> bytes | None:
        headers = {"Authorization": f"Bearer {SIGNING_KEY}"}
        return _opened(urllib.request.Request(f"{self.url}{path}", headers=headers))

    def _wait(self, reached: Callable[[], bool]) -> None:
        ends = time.monotonic() + _SECONDS
        while not reached():
            assert time.monotonic() < ends, (self._folder / "log").read_text()[-2000:]
            time.sleep(0.05)


class FakeServer(Server):
    """The fake one with the functions of every app."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, [sys.executable, "-m", "tests.real_inngest.fake"])


class RealServer(Server):
    """A self-hosted server on SQLite, with a worker for each app that was needed.

    What the workers' functions send goes through the service.
    """

    def __init__(self, folder: Path) -> None:
        self._packages: Path | None = None
        self._apps: set[str] = set()
        super().__init__(folder, real_command(folder))

    def need(self, app: str) -> None:
        """Start this app's worker; it has run a function when this returns."""
        if app in self._apps:
            return
        self._apps.add(app)
        if app == "py":
            self._start_worker([sys.executable, "-m", "tests.real_inngest.worker"], ROOT)
        else:
            self._start_javascript(app)
        self._wait(lambda: self._runs(app))

    def _start_javascript(self, app: str) -> None:
        if self._packages is None:
            self._packages = self._folder / "node"
            self._packages.mkdir()
            (self._packages / "package.json").write_text('{"private": true}')
            with_packages(self._packages, *JAVASCRIPT.values())
            shutil.copy(Path(__file__).with_name("app.mjs"), self._packages)
        port = free_port()
        known = msgspec.json.encode(functions(app)).decode()
        sdk = JAVASCRIPT[app].partition("@")[0]
        command = ["node", "app.mjs", sdk, str(port)]
        self._start_worker(command, self._packages, FUNCTIONS=known)
        registration = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/inngest", method="PUT", data=b"{}"
        )
        self._wait(lambda: _opened(registration) is not None)

    def _start_worker(self, command: Sequence[str], folder: Path, **more: str) -> None:
        ours = {
            "INNGEST_BASE_URL": self.url,
            "INNGEST_SIGNING_KEY": SIGNING_KEY,
            "INNGEST_EVENT_API_BASE_URL": self.service_url,
            "INNGEST_EVENT_KEY": SERVICE_KEY,
            "INNGEST_DEV": "0",
        }
        self._start(command, folder, **ours, **more)

    def _runs(self, app: str) -> bool:
        """Whether an event that is sent now starts a run within a second."""
        body = json.dumps({"name": f"{app}/echo", "id": new_key()}).encode()
        sent = _opened(urllib.request.Request(f"{self.url}/e/{EVENT_KEY}", data=body))
        assert sent is not None
        path = f"/api/v2/events/{json.loads(sent)['ids'][0]}/runs"
        ends = time.monotonic() + 1
        while time.monotonic() < ends:
            if b"COMPLETED" in (self._ask(path) or b""):
                return True
            time.sleep(0.05)
        return False


def _opened(request: urllib.request.Request) -> bytes | None:
    with (
        contextlib.suppress(OSError),  # not there yet, or not answering in time
        urllib.request.urlopen(request, timeout=10) as answer,
    ):
        body: bytes = answer.read()
        return body
    return None
