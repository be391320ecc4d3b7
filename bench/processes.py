"""The processes of a benchmark: started, found by the address they print, stopped by their id.

Each is a process of its own, as in production; nothing that is measured shares an interpreter with
what drives it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.support.postgres_server import PostgresServer, running_postgres

START_SECONDS = 30.0
STOP_SECONDS = 30.0
ROOT = Path(__file__).parents[1]
_TICKS = os.sysconf("SC_CLK_TCK")
_USER = {"email": "ada@example.com", "name": "Ada", "id": "u-1"}


@dataclass
class Server:
    """A running process that answers HTTP at `url`."""

    process: subprocess.Popen[bytes]
    url: str = ""

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def port(self) -> int:
        return urlsplit(self.url).port

    def cpu_seconds(self) -> float:
        """User and system time of all its threads, and of its child processes."""
        return sum(map(_cpu_seconds, self._pids()))

    def cpu_seconds_by_kind(self) -> dict[str, float]:
        """The same, of the processes of each kind: `store`, `fronts`, and `rest` for its others."""
        found = {"store": 0.0, "fronts": 0.0, "rest": 0.0}
        for pid in self._pids():
            found[_kind(pid)] += _cpu_seconds(pid)
        return found

    def resident_mib(self) -> float:
        """Of all its processes; pages that they share count in each."""
        return self._status_kib("VmRSS") / 1024

    def peak_resident_mib(self) -> float:
        """The sum of the peaks of its processes, which need not have come at the same time."""
        return self._status_kib("VmHWM") / 1024

    def hold(self) -> None:
        """Stop it where it stands: its connections stay, nothing is answered."""
        self.process.send_signal(signal.SIGSTOP)

    def let_go(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def call(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] = {}
    ) -> tuple[int, Any, http.client.HTTPMessage]:
        """One request; the status, the decoded JSON (None without any) and the headers."""
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
        with contextlib.closing(connection):
            data = None if body is None else json.dumps(body)
            sent = {**({"Content-Type": "application/json"} if body is not None else {}), **headers}
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            raw = answer.read()
            return answer.status, json.loads(raw) if raw else None, answer.headers

    def text(self, path: str) -> str:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=60) as answer:
            return answer.read().decode()

    def cookie(self, path: str) -> str:
        """The Cookie header of a new session."""
        status, _, headers = self.call("POST", path, _USER)
        assert status == 200, (path, status)
        return headers["Set-Cookie"].partition(";")[0]

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def _status_kib(self, name: str) -> int:
        """Of the process and its child processes together."""
        found = [Path(f"/proc/{pid}/status").read_text() for pid in self._pids()]
        return sum(int(re.search(rf"{name}:\s+(\d+)", status)[1]) for status in found)

    def _pids(self) -> list[int]:
        return [self.pid, *_children(self.pid)]


@contextlib.contextmanager
def started(
    command: Sequence[str], environment: Mapping[str, str] = {}, *, cwd: Path | None = None
) -> Iterator[Server]:
    """Run `command` until the block ends; ready once it has printed where it listens."""
    with tempfile.NamedTemporaryFile("a") as output:
        process = subprocess.Popen(
            command,
            env={**plain_environment(), **environment},
            cwd=cwd or ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        server = Server(process)
        try:
            server.url = _printed_url(process, Path(output.name))
            yield server
        finally:
            server.stop()


def sink(port: int = 0) -> contextlib.AbstractContextManager[Server]:
    """The fake Inngest that only counts and answers."""
    return started(
        [sys.executable, "-m", "inngest_outbox.dev.fake_inngest", "--port", str(port), "--sink"]
    )


def receiver() -> contextlib.AbstractContextManager[Server]:
    """The Event API that notes when events come."""
    return started([sys.executable, "-m", "bench.receiver"])


def handlers(sink_url: str, count: int = 1) -> contextlib.AbstractContextManager[Server]:
    """`count` processes of the handlers, at one address."""
    options = ["--sink", sink_url, "--processes", str(count)]
    return started([sys.executable, "-m", "bench.handlers", *options])


def service(
    inngest_url: str, folder: Path, *, send_timeout: float = 10, port: int = 0, **changes: str
) -> contextlib.AbstractContextManager[Server]:
    """The real service on an SQLite outbox in `folder`, delivering to `inngest_url`."""
    command = [sys.executable, "-m", "inngest_outbox", "serve"]
    environment = {
        **service_environment(inngest_url, folder),
        "OUTBOX_SEND_TIMEOUT": str(send_timeout),
        "PORT": str(port),
        **changes,
    }
    return started(command, environment, cwd=folder)


@contextlib.contextmanager
def postgres(**how: Any) -> Iterator[PostgresServer]:
    """A PostgreSQL of its own, as `running_postgres` makes it; without one the benchmark ends."""
    with running_postgres(**how) as server:
        if server is None:
            sys.exit("there is no PostgreSQL on this machine")
        yield server


def service_environment(inngest_url: str, folder: Path) -> dict[str, str]:
    return {
        "OUTBOX_URL": f"sqlite:///{folder / 'outbox.db'}",
        "AWS_S3_REGION": "eu-west-1",
        "AWS_S3_BUCKET": "documents",
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "SESSION_SECRET": "a-secret-of-the-benchmark-only",
        "INNGEST_DEV": inngest_url,
        "OUTBOX_MAX_PENDING": "10000000",
        "OUTBOX_MAX_PENDING_PER_USER": "10000000",
        "LOG_FORMAT": "json",
    }


def plain_environment() -> dict[str, str]:
    """This environment without what would configure the service or the SDK."""
    ours = ("AWS_", "INNGEST_", "OUTBOX_", "SESSION_", "NEXTAUTH_", "AUTH_", "OIDC_", "LOG_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "PYTHONPATH": f"{ROOT}:{ROOT}/service"}


def arrivals(sink: Server) -> int:
    """The number of events that came to the fake Inngest."""
    return sink.call("GET", "/fake-inngest/stats")[1]["arrivals"]


def wait_for_arrivals(sink: Server, count: int, seconds: float = 60.0) -> float:
    """Wait until `count` events came; the monotonic time of seeing them."""
    deadline = time.monotonic() + seconds
    while arrivals(sink) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{arrivals(sink)} of {count} events came in {seconds:g} s")
        time.sleep(0.005)
    return time.monotonic()


def undelivered(server: Server) -> int:
    """The number of events that the service still has to deliver."""
    return server.call("GET", "/readyz")[1]["detail"]["undelivered"]


def wait_until_delivered(server: Server, seconds: float = 60.0) -> None:
    """So that one measurement's rest does not run beside the next one."""
    deadline = time.monotonic() + seconds
    while undelivered(server):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{undelivered(server)} events are still undelivered")
        time.sleep(0.05)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _kind(pid: int) -> str:
    arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    if b"--store" in arguments:
        return "store"
    return "fronts" if b"--store-socket" in arguments else "rest"


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _printed_url(process: subprocess.Popen[bytes], output: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        printed = output.read_text()
        if found := re.search(r"(?i)listen\w* on (http://\S+)\s", printed):
            return found[1]
        if process.poll() is not None:
            break
        time.sleep(0.005)
    raise RuntimeError(f"did not start:\n{printed}")
