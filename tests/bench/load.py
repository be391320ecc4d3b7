"""Load: wrk where it is installed, else a small generator of ours.

Both keep a fixed number of connections busy, each with one request at a time, and report the same
figures. Of one run, only compare what the same generator measured.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

BODY = '{"documentName": "example"}'
WRK = shutil.which("wrk")
HOW_TO_GET_WRK = (
    "wrk is not installed (Debian, Ubuntu: apt-get install wrk; macOS: brew install wrk).\n"
    "Load comes from a slower generator of ours, which takes processor time from what is measured."
)

_SCRIPT = """
wrk.method = "POST"
wrk.body = [[{body}]]
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
    """What a run of load saw. Latencies are in milliseconds."""

    requests: int
    seconds: float
    errors: int
    refused: int
    p50: float
    p99: float
    longest: float

    @property
    def per_second(self) -> float:
        return (self.requests - self.refused) / self.seconds


def post(
    url: str, *, cookie: str | None = None, connections: int = 64, seconds: float = 2.0
) -> Load:
    """POST the body to `url` on `connections` for `seconds`."""
    if WRK:
        return _wrk(url, cookie, connections, seconds)
    return _own(url, cookie, connections, seconds)


def median_of(rounds: int, measure: Callable[[], float]) -> float:
    """The median of an odd number of `rounds`."""
    return sorted(measure() for _ in range(rounds))[rounds // 2]


def _wrk(url: str, cookie: str | None, connections: int, seconds: float) -> Load:
    line = f'wrk.headers["Cookie"] = [[{cookie}]]' if cookie else ""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "post.lua"
        script.write_text(_SCRIPT.format(body=BODY, cookie=line))
        command = [WRK, "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "30s"]
        return _result([*command, "-s", str(script), url])


def _own(url: str, cookie: str | None, connections: int, seconds: float) -> Load:
    command = [sys.executable, "-m", "tests.bench.generator", url, str(connections), str(seconds)]
    return _result([*command, *([cookie] if cookie else [])])


def _result(command: list[str]) -> Load:
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            return Load(**json.loads(line.removeprefix("RESULT ")))
    raise RuntimeError(f"{command[0]} gave no result:\n{done.stdout}{done.stderr}")
