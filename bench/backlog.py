"""The costs of a backlog: draining it, posting during a drain, keeping it.

Two services run side by side: `empty` has nothing waiting, `full` has a million rows. A sink that
is held (stopped where it stands) keeps rows waiting without an outage; let go, the drain runs at
full speed at once. Only one of the two works at any moment.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import draining, load, processes
from bench.fill import fill
from bench.processes import Server
from bench.rounds import Figures, Run, in_turns, median, ratio

BACKLOG = 100_000
MILLION = 1_000_000
BATCH = 500
_HOLD_SECONDS = 300  # the most that the service takes; no sink is held longer


def measure(run: Run) -> None:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=run.folder)))
        fill(folder / "outbox.db", MILLION)
        sinks = [stack.enter_context(processes.sink()) for _ in range(2)]
        for sink in sinks:
            sink.hold()
        full = stack.enter_context(
            processes.service(sinks[0].url, folder, send_timeout=_HOLD_SECONDS)
        )
        other = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=run.folder)))
        empty = stack.enter_context(
            processes.service(sinks[1].url, other, send_timeout=_HOLD_SECONDS)
        )
        idle = empty.resident_mib()
        _wait_until_counted(full)
        _posts_beside_rows(run, empty, full)
        run.found("memory_million", full.peak_resident_mib() - idle)
        _stats(run, folder)
        sinks[1].let_go()
        processes.wait_until_delivered(empty)
        _drains(run)
        draining.measure(run, "posts_draining", empty, full, sinks[0])


def _posts_beside_rows(run: Run, empty: Server, full: Server) -> None:
    """Neither delivers: the sinks are held."""
    found = in_turns(
        run.rounds,
        {"empty": _posting(run, empty), "full": _posting(run, full)},
    )
    run.found("posts_million", ratio(found["full"], found["empty"], "per_second"))
    run.details["posts_with_1000000_rows"] = {
        name: round(median(rounds, "per_second")) for name, rounds in found.items()
    }


def _drains(run: Run) -> None:
    rounds = 3
    found = in_turns(
        rounds,
        {
            "outbox": lambda: _drain(run, BACKLOG),
            "sdk": lambda: _sdk_drain(run),
            "sdk_events_made_before": lambda: _sdk_drain(run, "--made"),
            "million": lambda: _drain(run, MILLION),
        },
    )
    run.found("drain_to_sdk", ratio(found["outbox"], found["sdk"], "per_second"))
    run.found("drain_million", ratio(found["million"], found["outbox"], "per_second"))
    run.details["drain_per_second"] = {
        name: round(median(rounds, "per_second")) for name, rounds in found.items()
    }


def _posting(run: Run, server: Server):
    cookie = server.cookie("/auth/dev-login")

    def measure() -> Figures:
        seen = load.post(f"{server.url}/api/route", cookie=cookie, seconds=run.seconds).all_good()
        run.say(f"posts {seen.per_second:8,.0f}/s  p99 {seen.p99:6.1f} ms")
        return {"per_second": seen.per_second, "p99_ms": seen.p99}

    return measure


def _drain(run: Run, rows: int) -> Figures:
    """100,000 of `rows` that wait, from the moment they may go, by a new service to a new sink."""
    with (
        tempfile.TemporaryDirectory(dir=run.folder) as name,
        processes.sink() as sink,
    ):
        fill(Path(name) / "outbox.db", rows)
        sink.hold()
        with processes.service(sink.url, Path(name), send_timeout=_HOLD_SECONDS) as service:
            _wait_until_counted(service)
            began = time.monotonic()
            sink.let_go()
            seconds = processes.wait_for_arrivals(sink, BACKLOG) - began
    run.say(f"drained 100,000 of {rows:,}: {BACKLOG / seconds:8,.0f}/s")
    return {"per_second": BACKLOG / seconds}


def _sdk_drain(run: Run, *how: str) -> Figures:
    with processes.sink() as sink:
        command = [sys.executable, "-m", "bench.sdk_drain", sink.url]
        with subprocess.Popen(
            [*command, str(BACKLOG), str(BATCH), *how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=processes.ROOT,
            env=processes.plain_environment(),
        ) as process:
            assert process.stdout.readline() == "ready\n"
            began = time.monotonic()
            process.stdin.write("go\n")
            process.stdin.flush()
            seconds = processes.wait_for_arrivals(sink, BACKLOG) - began
    run.say(f"the SDK sent   100,000: {BACKLOG / seconds:8,.0f}/s {' '.join(how)}")
    return {"per_second": BACKLOG / seconds}


def _stats(run: Run, folder: Path) -> None:
    """The whole command, from its start to its end, beside the running service."""
    command = [sys.executable, "-c", "from inngest_outbox.__main__ import outbox; outbox()"]
    environment = {
        **processes.plain_environment(),
        **processes.service_environment("http://127.0.0.1:9", folder),
    }
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run(
            [*command, "stats", "--json"],
            env=environment,
            cwd=folder,
            check=True,
            stdout=subprocess.PIPE,
        )
        seconds.append(time.perf_counter() - began)
    run.found("stats_million", statistics.median(seconds))


def _wait_until_counted(service: Server) -> None:
    """Until the rows of the earlier process are counted, and the processor is idle again."""
    deadline = time.monotonic() + 60
    seen = [service.cpu_seconds()]
    for _ in itertools.takewhile(lambda _: time.monotonic() < deadline, itertools.count()):
        time.sleep(0.2)
        seen.append(service.cpu_seconds())
        if processes.undelivered(service) and seen[-1] - seen[-2] < 0.02:
            return
