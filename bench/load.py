"""Load: wrk where it is installed, else a small generator of ours.

Both keep a fixed number of connections busy, each with one request at a time, and report the same
figures. Of one run, only compare what the same generator measured.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

BODY = '{"documentName": "example"}'
ROOT = Path(__file__).parents[1]
WRK = shutil.which("wrk")
HOW_TO_GET_WRK = (
    "wrk is not installed (Debian, Ubuntu: apt-get install wrk; macOS: brew install wrk).\n"
    "Load comes from a slower generator of ours, which takes processor time from what is measured."
)

_SCRIPT = """
wrk.method = "POST"
wrk.body = [=[{body}]=]
wrk.headers["Content-Type"] = "application/json"
{cookie}
done = function(summary, latency, requests)
  local failed = summary.errors
  io.write(string.format(
    'RESULT {{"requests": %d, "seconds": %f, "errors": %d, "refused": %d, ' ..
    '"p50": %f, "p99": %f, "longest": %f}}\\n',
    summary.requests, summary.duration / 1e6,
    failed.connect + failed.read + failed.write + failed.timeout, failed.status,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end
"""


@dataclass(frozen=True)
class Load:
    """The results of a run of load. Latencies are in milliseconds."""

    requests: int
    seconds: float
    errors: int
    refused: int
    p50: float
    p99: float
    longest: float

    @property
    def per_second(self) -> float:
        """Good answers per second."""
        return (self.requests - self.refused) / self.seconds

    def all_good(self) -> Load:
        """Itself, or an error when any request failed: a ratio of errors says nothing."""
        if self.errors or self.refused or not self.requests:
            raise RuntimeError(f"not every request was answered well: {self}")
        return self


def post(
    url: str,
    *,
    cookie: str | None = None,
    connections: int = 64,
    seconds: float = 2.0,
    body: str = BODY,
) -> Load:
    """POST the body to `url` on `connections` for `seconds`."""
    if WRK:
        return _wrk(url, cookie, connections, seconds, body)
    return _run([*_generator("closed", url, cookie, connections, seconds), "--body", body])


def burst(url: str, *, cookie: str, connections: int) -> Load:
    """One request on each of `connections`, all sent before the first is answered."""
    return _generate("burst", url, cookie, connections, 0)


@contextlib.contextmanager
def paced(
    url: str,
    *,
    cookie: str | None = None,
    connections: int,
    seconds: float,
    rate: float,
    body: str = BODY,
) -> Iterator[Callable[[], Load]]:
    """`rate` requests a second beside the block; call what it gives for what was seen."""
    command = [*_generator("paced", url, cookie, connections, seconds), "--rate", str(rate)]
    command += ["--body", body]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        yield lambda: _result(command, process.communicate()[0])


def _wrk(url: str, cookie: str | None, connections: int, seconds: float, body: str) -> Load:
    line = f'wrk.headers["Cookie"] = [[{cookie}]]' if cookie else ""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "post.lua"
        script.write_text(_SCRIPT.format(body=body, cookie=line))
        command = [WRK, "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "30s"]
        return _run([*command, "-s", str(script), url])


def _generate(way: str, url: str, cookie: str | None, connections: int, seconds: float) -> Load:
    return _run(_generator(way, url, cookie, connections, seconds))


def _generator(
    way: str, url: str, cookie: str | None, connections: int, seconds: float
) -> list[str]:
    command = [sys.executable, "-m", "bench.generator", way, url]
    return [*command, str(connections), str(seconds), *([cookie] if cookie else [])]


def _run(command: list[str]) -> Load:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return _result(command, done.stdout + done.stderr)


def _result(command: list[str], printed: str) -> Load:
    for line in printed.splitlines():
        if line.startswith("RESULT "):
            return Load(**json.loads(line.removeprefix("RESULT ")))
    raise RuntimeError(f"{command[0]} gave no result:\n{printed}")
