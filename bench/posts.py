"""Posts at full rate: beside handlers that do less, over connections, and their syncs.

Events are delivered to the sink all the while, as in production; each measurement ends only when
all its events are delivered, so that none runs beside another one's rest.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import load, processes
from bench.processes import Server
from bench.rounds import Figures, Run, in_turns, medians, ratio

CONNECTIONS = 64
CURVE = (1, 4, 16, 64, 256, 1000)


def beside_handlers(run: Run, service: Server, handlers: Server) -> None:
    cookie = service.cookie("/auth/dev-login")
    signed_in = handlers.cookie("/signed-in/login")
    found = in_turns(
        run.rounds,
        {
            "parse": lambda: measured(run, handlers, "/parse", None),
            "outbox": _posting(run, service, cookie),
            "session": lambda: measured(run, handlers, "/signed-in/session", signed_in),
            "sdk": lambda: measured(run, handlers, "/sdk", None),
        },
    )
    run.found("posts_to_parse", ratio(found["outbox"], found["parse"], "per_second"))
    run.found("posts_to_sdk", ratio(found["outbox"], found["sdk"], "per_second"))
    run.found("cpu_to_parse", ratio(found["outbox"], found["parse"], "cpu_us"))
    run.details["posts"] = medians(found)


def over_connections(run: Run, service: Server, handlers: Server) -> None:
    """The first picture's figures."""
    cookie = service.cookie("/auth/dev-login")
    curve: dict[str, list[Figures]] = {"outbox": [], "parse": []}
    for connections in CURVE:
        for name, server, path, session in (
            ("outbox", service, "/api/route", cookie),
            ("parse", handlers, "/parse", None),
        ):
            figures = measured(run, server, path, session, connections)
            curve[name].append({"connections": connections, **figures})
            if server is service:
                processes.wait_until_delivered(service)
    run.details["curve"] = curve


def syncs(run: Run, sink: Server) -> None:
    """Count the sync system calls of one process."""
    if found := counted_syncs(run, sink):
        run.details["syncs"] = found
        run.found("syncs_per_post", found["syncs"] / found["posts"])


def counted_syncs(run: Run, sink: Server, **changes: str) -> dict[str, int]:
    """The syncs and the posts of a whole service, from its start to its stop; {} if not counted."""
    strace = shutil.which("strace")
    if not strace:
        run.say("syncs are not counted: strace is not installed")
        return {}
    with tempfile.TemporaryDirectory(dir=run.folder) as name:
        folder, counts = Path(name), Path(name) / "syncs"
        command = [strace, "-f", "--seccomp-bpf", "-c", "-e", "trace=fsync,fdatasync"]
        command += ["-o", str(counts), sys.executable, "-m", "inngest_outbox", "serve"]
        environment = {**processes.service_environment(sink.url, folder), "PORT": "0", **changes}
        with processes.started(command, environment, cwd=folder) as service:
            cookie = service.cookie("/auth/dev-login")
            posts = load.post(
                f"{service.url}/api/route",
                cookie=cookie,
                connections=CONNECTIONS,
                seconds=max(2, run.seconds),
            ).all_good()
            processes.wait_until_delivered(service)
            _stop_child(service)
        total = count_syncs(counts.read_text())
    if total:
        return {"syncs": total, "posts": posts.requests}
    run.say("syncs are not counted: strace may not trace here")
    return {}


def _posting(run: Run, service: Server, cookie: str) -> Callable[[], Figures]:
    def measure() -> Figures:
        before = service.cpu_seconds()
        figures = measured(run, service, "/api/route", cookie)
        processes.wait_until_delivered(service)
        cpu = service.cpu_seconds() - before
        return {**figures, "cpu_us": cpu / figures["requests"] * 1e6}

    return measure


def measured(
    run: Run, server: Server, path: str, cookie: str | None, connections: int = CONNECTIONS
) -> Figures:
    """The load of posts to `path`. Raises RuntimeError unless all are answered well."""
    before = server.cpu_seconds()
    seen = load.post(
        f"{server.url}{path}", cookie=cookie, connections=connections, seconds=run.seconds
    ).all_good()
    cpu = server.cpu_seconds() - before
    run.say(
        f"{path:20} x {connections:<4} {seen.per_second:8,.0f}/s  p50 {seen.p50:6.1f} ms"
        f"  p99 {seen.p99:6.1f} ms  cpu {cpu / seen.requests * 1e6:5.0f} us"
    )
    return {
        "requests": seen.requests,
        "per_second": seen.per_second,
        "p50_ms": seen.p50,
        "p99_ms": seen.p99,
        "cpu_us": cpu / seen.requests * 1e6,
    }


def count_syncs(counts: str) -> int:
    """The calls of both kinds in strace's table: share, seconds, microseconds each, calls, name."""
    rows = [line.split() for line in counts.splitlines()]
    return sum(int(row[3]) for row in rows if row and row[-1] in {"fsync", "fdatasync"})


def _stop_child(tracer: Server) -> None:
    """Stop the traced service; the tracer then writes its counts and ends."""
    children = Path(f"/proc/{tracer.pid}/task/{tracer.pid}/children").read_text().split()
    for child in children:
        subprocess.run(["kill", f"-{signal.SIGTERM.value}", child], check=False)
    deadline = time.monotonic() + processes.STOP_SECONDS
    while tracer.process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
