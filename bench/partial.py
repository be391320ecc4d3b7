"""Drains while a share of the requests fails or each event has its trace; good among bad events."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from bench import processes
from bench.fill import fill
from bench.processes import Server
from bench.rounds import Figures, Run, in_turns, median, ratio

_ROWS = 30_000
_SHARES = (0.1, 0.3, 0.5)
_HOLD_SECONDS = 300
_DRAIN_SECONDS = 120.0
_BAD_SHARE = 0.8
_POSTS_PER_SECOND = 30
_SETTLE_SECONDS = 10.0


def drains(run: Run) -> None:
    """Events/s with a share of the requests failing, and with traces, beside none, in turns."""
    shares = (0.0, *_SHARES)
    drains = {f"{share:.0%}": lambda share=share: _drain(run, share) for share in shares}
    found = in_turns(3, {**drains, "traced": lambda: _drain(run, 0.0, traced=True)})
    run.found("drain_traced", ratio(found["traced"], found["0%"], "per_second"))
    for share in _SHARES:
        key = f"drain_failing_{share * 100:.0f}"
        run.found(key, ratio(found[f"{share:.0%}"], found["0%"], "per_second"))
    run.details["drain_with_failing_requests_per_second"] = {
        name: round(median(rounds, "per_second")) for name, rounds in found.items()
    }


def good_among_bad(run: Run) -> None:
    """The wait of good events while four of five events are bad."""
    seconds = 20 if run.quick else 40
    found = {
        kind: _wait(run, status, seconds) for kind, status in (("refused", 400), ("failing", 500))
    }
    run.found("wait_among_bad", max(one["median_wait"] for one in found.values()))
    run.details["good_among_bad"] = found


def _gateway(failing: float = 0.0, status: int = 500) -> contextlib.AbstractContextManager[Server]:
    command = [sys.executable, "-m", "bench.gateway"]
    return processes.started([*command, "--failing", str(failing), "--status", str(status)])


def _drain(run: Run, share: float, *, traced: bool = False) -> Figures:
    with tempfile.TemporaryDirectory(dir=run.folder) as name, _gateway(share) as gateway:
        fill(Path(name) / "outbox.db", _ROWS, traced=traced)
        gateway.hold()
        with processes.service(gateway.url, Path(name), send_timeout=_HOLD_SECONDS) as service:
            _wait_until_counted(service)
            began = time.monotonic()
            gateway.let_go()
            seconds = _wait_for(gateway, _ROWS, began)
    traces = "a trace each" if traced else f"{share:.0%} failing"
    run.say(f"drained 30,000 with {traces}: {_ROWS / seconds:8,.0f}/s")
    return {"per_second": _ROWS / seconds}


def _wait_for(gateway: Server, count: int, began: float) -> float:
    """Seconds until `count` events came; the pace so far counts where it takes too long."""
    while (arrived := processes.arrivals(gateway)) < count:
        waited = time.monotonic() - began
        if waited > _DRAIN_SECONDS:
            return waited * count / max(1, arrived)
        time.sleep(0.005)
    return time.monotonic() - began


def _wait_until_counted(service: Server) -> None:
    while processes.undelivered(service) < _ROWS:
        time.sleep(0.05)
    time.sleep(0.5)


def _wait(run: Run, status: int, seconds: float) -> dict[str, float]:
    chance = random.Random(7)
    with (
        tempfile.TemporaryDirectory(dir=run.folder) as name,
        _gateway(status=status) as gateway,
        processes.service(gateway.url, Path(name)) as service,
    ):
        address, good = urlsplit(service.url), 0
        headers = {"Cookie": service.cookie("/auth/dev-login"), "Content-Type": "application/json"}
        with contextlib.closing(
            http.client.HTTPConnection(address.hostname, address.port)
        ) as connection:
            for number in range(int(seconds * _POSTS_PER_SECOND)):
                bad = chance.random() < _BAD_SHARE
                good += not bad
                body = json.dumps({"documentName": f"{'bad' if bad else 'good'}-{number}"})
                connection.request("POST", "/api/route", body, headers)
                connection.getresponse().read()
                time.sleep(1 / _POSTS_PER_SECOND)
        time.sleep(_SETTLE_SECONDS)
        seen = gateway.call("GET", "/fake-inngest/stats")[1]
    seen["arrived_share"] = seen["arrivals"] / good
    run.say(f"good events among bad ones ({status}): {seen}")
    return seen
