"""The price of private data: posts whose data is encrypted, and a drain that wipes what it deletes.

`secure_delete` can't be set from outside, so its counterpart is a service whose pragma is replaced
before it starts.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from pathlib import Path

from bench import load, processes
from bench.fill import fill
from bench.processes import Server
from bench.rounds import Figures, Run, in_turns, medians, ratio

_CONNECTIONS = 64
_ROWS = 50_000
_UNWIPED = """
from inngest_outbox.outbox.sqlite.file import connection
pragmas = connection._WRITER_PRAGMAS.replace("secure_delete = ON", "secure_delete = OFF")
assert pragmas != connection._WRITER_PRAGMAS
connection._WRITER_PRAGMAS = pragmas
from inngest_outbox.processes.main import app
app(["serve"])
"""


def measure(run: Run) -> None:
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(processes.sink())

        def service(**changes: str) -> Server:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=run.folder)))
            return stack.enter_context(processes.service(sink.url, folder, **changes))

        plain, sealed = service(), service(OUTBOX_ENCRYPTION_KEY="a-key-of-the-benchmark-only")
        cookies = {one.pid: one.cookie("/auth/dev-login") for one in (plain, sealed)}
        found = in_turns(
            run.rounds,
            {
                "plain": lambda: _posts(run, plain, cookies[plain.pid]),
                "sealed": lambda: _posts(run, sealed, cookies[sealed.pid]),
            },
        )
    run.found("posts_encrypted", ratio(found["sealed"], found["plain"], "per_second"))
    run.found("cpu_encrypted", ratio(found["sealed"], found["plain"], "cpu_us"))
    drains = in_turns(
        run.rounds,
        {
            "wiped": lambda: _drain(run, "-m", "inngest_outbox", "serve"),
            "kept": lambda: _unwiped(run),
        },
    )
    run.found("drain_wiped", ratio(drains["wiped"], drains["kept"], "per_second"))
    run.found("cpu_wiped", ratio(drains["wiped"], drains["kept"], "cpu_us"))
    run.details["private"] = medians({**found, **drains})


def _posts(run: Run, server: Server, cookie: str) -> Figures:
    before = server.cpu_seconds()
    seen = load.post(
        f"{server.url}/api/route", cookie=cookie, connections=_CONNECTIONS, seconds=run.seconds
    ).all_good()
    processes.wait_until_delivered(server)
    cpu_us = (server.cpu_seconds() - before) / seen.requests * 1e6
    run.say(f"posts {seen.per_second:8,.0f}/s  p99 {seen.p99:6.1f} ms  cpu {cpu_us:5.0f} us")
    return {"per_second": seen.per_second, "p99_ms": seen.p99, "cpu_us": cpu_us}


def _unwiped(run: Run) -> Figures:
    return _drain(run, "-c", _UNWIPED)


def _drain(run: Run, *command: str) -> Figures:
    """Rows that wait, from the moment they may go, by a new service to a new sink."""
    with tempfile.TemporaryDirectory(dir=run.folder) as name, processes.sink() as sink:
        folder = Path(name)
        fill(folder / "outbox.db", _ROWS)
        sink.hold()
        environment = processes.service_environment(sink.url, folder)
        environment |= {"PORT": "0", "OUTBOX_SEND_TIMEOUT": "300"}
        with processes.started([sys.executable, *command], environment, cwd=folder) as service:
            began, before = time.monotonic(), service.cpu_seconds()
            sink.let_go()
            seconds = processes.wait_for_arrivals(sink, _ROWS) - began
            cpu_us = (service.cpu_seconds() - before) / _ROWS * 1e6
    run.say(f"drained {_ROWS:,}: {_ROWS / seconds:8,.0f}/s  cpu {cpu_us:5.1f} us")
    return {"per_second": _ROWS / seconds, "cpu_us": cpu_us}
