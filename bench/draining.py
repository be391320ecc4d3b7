"""Posts while a backlog drains, beside posts with nothing to drain.

At full rate the service and what loads it use all cores, so a drain takes its time from the posts.
At half of that rate a core has time left: there posts should not feel the drain.
"""

from __future__ import annotations

from collections.abc import Callable

from bench import load, processes
from bench.processes import Server
from bench.rounds import Figures, Run, in_turns, median, medians, ratio

CONNECTIONS = 64
_ROUNDS = 3
_Post = Callable[[Server, str], Figures]


def measure(run: Run, key: str, empty: Server, full: Server, sink: Server) -> None:
    """`empty` delivers what comes in, `full` drains its rows beside. `sink` is that of `full`.

    Finds `key` at full rate, `key`_half and `key`_half_p99 at half of it.
    """
    cookies = {server.pid: server.cookie("/auth/dev-login") for server in (empty, full)}

    def turns(post: _Post) -> dict[str, list[Figures]]:
        def alone() -> Figures:
            figures = post(empty, cookies[empty.pid])
            processes.wait_until_delivered(empty)
            return figures

        def beside() -> Figures:
            sink.let_go()
            try:
                return post(full, cookies[full.pid])
            finally:
                sink.hold()

        return in_turns(_ROUNDS, {"alone": alone, "beside": beside})

    at_full = turns(lambda server, cookie: _closed(run, server, cookie))
    rate = median(at_full["alone"], "per_second") / 2
    at_half = turns(lambda server, cookie: _paced(run, server, cookie, rate))
    if not processes.undelivered(full):
        run.say("the backlog was gone before the posts were: not measured")
        return
    run.found(key, ratio(at_full["beside"], at_full["alone"], "per_second"))
    run.found(f"{key}_half", ratio(at_half["beside"], at_half["alone"], "per_second"))
    run.found(f"{key}_half_p99", ratio(at_half["beside"], at_half["alone"], "p99_ms"))
    run.details[key] = {"full": medians(at_full), "half": medians(at_half)}


def _closed(run: Run, server: Server, cookie: str) -> Figures:
    return _figures(
        run,
        load.post(
            f"{server.url}/api/route", cookie=cookie, connections=CONNECTIONS, seconds=run.seconds
        ).all_good(),
    )


def _paced(run: Run, server: Server, cookie: str, rate: float) -> Figures:
    """At a fixed rate. What found no idle connection was not posted, and lowers the rate."""
    with load.paced(
        f"{server.url}/api/route",
        cookie=cookie,
        connections=CONNECTIONS,
        seconds=run.seconds,
        rate=rate,
    ) as seen:
        return _figures(run, seen())


def _figures(run: Run, seen: load.Load) -> Figures:
    figures = {"per_second": seen.per_second, "p50_ms": seen.p50, "p99_ms": seen.p99}
    run.say(
        "posts {per_second:8,.0f}/s  p50 {p50_ms:5.1f} ms  p99 {p99_ms:6.1f} ms".format(**figures)
    )
    return figures
