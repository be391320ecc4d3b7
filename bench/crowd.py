"""Many at once: 1,000 connections, 10,000 requests in flight, and the start."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from bench import load, processes
from bench.generator import allow_many_files
from bench.processes import Server
from bench.rounds import Figures, Run

CONNECTIONS = 1000
IN_FLIGHT = 10_000
FRONTS = 2
_SPARE_FILES = 500


def at_once(run: Run, sink: Server) -> None:
    with (
        tempfile.TemporaryDirectory(dir=run.folder) as name,
        processes.service(sink.url, Path(name)) as service,
    ):
        seen = load.post(
            f"{service.url}/api/route",
            cookie=service.cookie("/auth/dev-login"),
            connections=CONNECTIONS,
            seconds=max(2, run.seconds),
        )
        run.say(f"x {CONNECTIONS}: {seen.per_second:,.0f}/s  p99 {seen.p99:.0f} ms")
        run.found("crowd_errors", seen.errors + seen.refused)
        run.found("crowd_longest", seen.longest / 1e3)


def in_flight(run: Run, sink: Server) -> None:
    """10,000 posts at once to one process and to fronts; beside it a handler that only parses."""
    if allow_many_files() < IN_FLIGHT + _SPARE_FILES:
        run.say(f"ulimit -n is below {IN_FLIGHT + _SPARE_FILES}: not measured")
        return
    with (
        tempfile.TemporaryDirectory(dir=run.folder) as name,
        processes.service(sink.url, Path(name)) as service,
        processes.handlers(sink.url) as handlers,
    ):
        cookie = service.cookie("/auth/dev-login")
        ours = _burst(run, service, "/api/route", cookie)
        run.found("memory_flight", ours["mib_above_idle"])
        parse = _burst(run, handlers, "/parse", cookie)
    with (
        tempfile.TemporaryDirectory(dir=run.folder) as name,
        processes.service(sink.url, Path(name), WEB_CONCURRENCY=str(FRONTS)) as fronts,
    ):
        cookie = fronts.cookie("/auth/dev-login")
        several = _burst(run, fronts, "/api/route", cookie)
    run.found("memory_flight_fronts", several["mib_above_idle"])
    run.details["in_flight"] = {"outbox": ours, "fronts": several, "parse": parse}


def _burst(run: Run, server: Server, path: str, cookie: str) -> Figures:
    idle = server.resident_mib()
    seen = load.burst(f"{server.url}{path}", cookie=cookie, connections=IN_FLIGHT).all_good()
    above = server.peak_resident_mib() - idle
    run.say(f"{path} x {IN_FLIGHT:,} in flight: {seen.seconds:.2f} s, {above:.0f} MiB above idle")
    return {
        "seconds": round(seen.seconds, 2),
        "longest_ms": round(seen.longest),
        "idle_mib": round(idle),
        "mib_above_idle": round(above, 1),
    }


def start(run: Run, sink: Server) -> None:
    """From the start of the process to the first answer to a request."""
    seconds, processor_seconds = [], []
    for _ in range(3):
        with tempfile.TemporaryDirectory(dir=run.folder) as name:
            began = time.perf_counter()
            with processes.service(sink.url, Path(name)) as service:
                service.call("GET", "/readyz")
                seconds.append(time.perf_counter() - began)
                processor_seconds.append(service.cpu_seconds())
    run.details["start_processor_seconds"] = statistics.median(processor_seconds)
    run.say(f"of it {statistics.median(processor_seconds):.2f} s of processor time")
    run.found("start", statistics.median(seconds))
