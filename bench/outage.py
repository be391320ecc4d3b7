"""Posts through Inngest's troubles: their p99, and a whole outage as a picture.

Away means that nothing listens; hanging means that connections are taken and nothing is answered.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path
from typing import Self

from bench import load, processes
from bench.processes import Server
from bench.rounds import Figures, Run, median, ratio

_RATE = 1500.0
_PHASES = (("good", 5.0), ("away", 10.0), ("back", 10.0))
_SAMPLE_SECONDS = 0.25


def latencies(run: Run) -> None:
    found: dict[str, list[Figures]] = {"good": [], "away": [], "hanging": []}
    with (
        tempfile.TemporaryDirectory(dir=run.folder) as name,
        _Inngest() as inngest,
        processes.service(inngest.server.url, Path(name)) as service,
    ):
        cookie = service.cookie("/auth/dev-login")
        for _ in range(run.rounds):
            found["good"].append(_posts(run, "good", service, cookie))
            inngest.hang()
            found["hanging"].append(_posts(run, "hanging", service, cookie))
            inngest.go_on()
            processes.wait_until_delivered(service)
            inngest.leave()
            found["away"].append(_posts(run, "away", service, cookie))
            inngest.come_back()
            processes.wait_until_delivered(service)
    run.found("p99_away", ratio(found["away"], found["good"], "p99_ms"))
    run.found("p99_hanging", ratio(found["hanging"], found["good"], "p99_ms"))
    run.details["p99_ms"] = {name: median(rounds, "p99_ms") for name, rounds in found.items()}


def picture(run: Run) -> None:
    """Posts at a fixed rate through an outage; backlog and delivery rate over time."""
    samples: list[dict[str, float]] = []
    with (
        tempfile.TemporaryDirectory(dir=run.folder) as name,
        _Inngest() as inngest,
        processes.service(inngest.server.url, Path(name)) as service,
    ):
        cookie = service.cookie("/auth/dev-login")
        seconds = sum(length for _, length in _PHASES)
        url = f"{service.url}/api/route"
        with load.paced(url, cookie=cookie, connections=256, seconds=seconds, rate=_RATE) as result:
            began = time.monotonic()
            until = began
            for phase, length in _PHASES:
                until += length
                if phase == "away":
                    inngest.leave()
                elif phase == "back":
                    inngest.come_back()
                while time.monotonic() < until:
                    samples.append(_sample(service, began))
                    time.sleep(_SAMPLE_SECONDS)
            seen = result()
        processes.wait_until_delivered(service)
    run.details["outage"] = {
        "phases": dict(_PHASES),
        "posted_per_second": _RATE,
        "p99_ms": round(seen.p99, 2),
        "not_answered_well": seen.errors + seen.refused,
        "samples": samples,
    }
    run.say(f"outage: p99 {seen.p99:.1f} ms, {seen.errors + seen.refused} posts not answered well")


def _posts(run: Run, phase: str, service: Server, cookie: str) -> Figures:
    seen = load.post(f"{service.url}/api/route", cookie=cookie, seconds=run.seconds).all_good()
    run.say(f"{phase:8} {seen.per_second:8,.0f}/s  p99 {seen.p99:6.1f} ms")
    if phase == "good":
        processes.wait_until_delivered(service)
    return {"p99_ms": seen.p99, "per_second": seen.per_second}


def _sample(service: Server, began: float) -> dict[str, float]:
    metrics = service.text("/metrics")
    delivered = next(
        float(line.split()[1])
        for line in metrics.splitlines()
        if line.startswith("outbox_delivered_total ")
    )
    return {
        "seconds": round(time.monotonic() - began, 3),
        "backlog": processes.undelivered(service),
        "delivered": delivered,
    }


class _Inngest:
    """The sink, which leaves, hangs and comes back at the same address."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.server: Server

    def __enter__(self) -> Self:
        self.come_back()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.leave()

    def hang(self) -> None:
        self.server.hold()

    def go_on(self) -> None:
        self.server.let_go()

    def leave(self) -> None:
        self._stack.close()

    def come_back(self) -> None:
        port = self.server.port if hasattr(self, "server") else 0
        self.server = self._stack.enter_context(processes.sink(port))
