"""Front processes: the same posts through one process and through two fronts with a store.

Two bare handlers beside one, on the same cores and under the same load, tell what there is to be
had. With few connections all clients wait for one sync now and then, and the cores with them; so
posts are measured with many, too. Syncs are counted: the store process commits the posts of all
fronts in one group. Then posts through two fronts while a backlog drains.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import draining, load, posts, processes
from bench.fill import fill
from bench.processes import Server
from bench.rounds import Figures, Run, in_turns, medians, ratio

CONNECTIONS, MANY = 64, 256
FRONTS = 2
BACKLOG = 600_000
_HOLD_SECONDS = 300  # the most that the service takes; no sink is held longer


def measure(run: Run) -> None:
    with (
        tempfile.TemporaryDirectory(dir=run.folder) as one,
        tempfile.TemporaryDirectory(dir=run.folder) as several,
        processes.sink() as sink,
        processes.service(sink.url, Path(one)) as alone,
        processes.service(sink.url, Path(several), WEB_CONCURRENCY=str(FRONTS)) as fronts,
        processes.handlers(sink.url) as bare,
        processes.handlers(sink.url, FRONTS) as pair,
    ):
        found = in_turns(
            run.rounds,
            {
                "one": _posting(run, alone, CONNECTIONS),
                "fronts": _posting(run, fronts, CONNECTIONS),
                "one_many": _posting(run, alone, MANY),
                "fronts_many": _posting(run, fronts, MANY),
                "bare": lambda: posts.measured(run, bare, "/parse", None),
                "bare_pair": lambda: posts.measured(run, pair, "/parse", None),
            },
        )
        counted = posts.counted_syncs(run, sink, WEB_CONCURRENCY=str(FRONTS))
        _draining(run, fronts)
    run.found("fronts_to_one", ratio(found["fronts"], found["one"], "per_second"))
    run.found("fronts_to_one_many", ratio(found["fronts_many"], found["one_many"], "per_second"))
    run.found("bare_pair_to_one", ratio(found["bare_pair"], found["bare"], "per_second"))
    run.found("fronts_cpu_to_one", ratio(found["fronts"], found["one"], "cpu_us"))
    if counted:
        run.found("fronts_syncs", counted["syncs"] / counted["posts"])
    run.details["fronts"] = medians(found) | {"counted": counted}


def _draining(run: Run, empty: Server) -> None:
    with tempfile.TemporaryDirectory(dir=run.folder) as name, processes.sink() as sink:
        fill(Path(name) / "outbox.db", BACKLOG)
        sink.hold()
        with processes.service(
            sink.url, Path(name), send_timeout=_HOLD_SECONDS, WEB_CONCURRENCY=str(FRONTS)
        ) as full:
            draining.measure(run, "fronts_draining", empty, full, sink)
            sink.let_go()


def _posting(run: Run, service: Server, connections: int) -> Callable[[], Figures]:
    cookie = service.cookie("/auth/dev-login")

    def post() -> Figures:
        before = service.cpu_seconds_by_kind()
        seen = load.post(
            f"{service.url}/api/route",
            cookie=cookie,
            connections=connections,
            seconds=run.seconds,
        ).all_good()
        processes.wait_until_delivered(service)
        used = {
            f"{kind}_cpu_us": (seconds - before[kind]) / seen.requests * 1e6
            for kind, seconds in service.cpu_seconds_by_kind().items()
        }
        cpu_us = sum(used.values())
        run.say(f"{seen.per_second:8,.0f}/s  p99 {seen.p99:6.1f} ms  cpu {cpu_us:5.0f} us")
        return {"per_second": seen.per_second, "p99_ms": seen.p99, "cpu_us": cpu_us, **used}

    return post
