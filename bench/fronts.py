"""Front processes: the same posts through one process and through two fronts with a store.

Two bare handlers on the same two cores tell what there is to be had.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import load, processes
from bench.processes import Server
from bench.rounds import Figures, Run, in_turns, median, ratio

CONNECTIONS = 64
FRONTS = 2


def measure(run: Run) -> None:
    with (
        tempfile.TemporaryDirectory(dir=run.folder) as one,
        tempfile.TemporaryDirectory(dir=run.folder) as several,
        processes.sink() as sink,
        processes.service(sink.url, Path(one)) as alone,
        processes.service(sink.url, Path(several), WEB_CONCURRENCY=str(FRONTS)) as fronts,
    ):
        found = in_turns(run.rounds, {"one": _posting(run, alone), "fronts": _posting(run, fronts)})
    run.found("fronts_to_one", ratio(found["fronts"], found["one"], "per_second"))
    run.found("fronts_cpu_to_one", ratio(found["fronts"], found["one"], "cpu_us"))
    run.details["fronts"] = {
        name: {key: round(median(rounds, key), 1) for key in rounds[0]}
        for name, rounds in found.items()
    }


def _posting(run: Run, service: Server) -> Callable[[], Figures]:
    cookie = service.cookie("/auth/dev-login")

    def post() -> Figures:
        before = service.cpu_seconds()
        seen = load.post(
            f"{service.url}/api/route",
            cookie=cookie,
            connections=CONNECTIONS,
            seconds=run.seconds,
        ).all_good()
        processes.wait_until_delivered(service)
        cpu_us = (service.cpu_seconds() - before) / seen.requests * 1e6
        run.say(f"{seen.per_second:8,.0f}/s  p99 {seen.p99:6.1f} ms  cpu {cpu_us:5.0f} us")
        return {"per_second": seen.per_second, "p99_ms": seen.p99, "cpu_us": cpu_us}

    return post
