"""The costs of confirmation: a drain at Inngest's storing rate, posts, processor time.

The fake Inngest keeps what it stores, unlike the other benchmarks' sink. With confirmation on it is
asked for every event; off, its answer is enough. OUTBOX_CONFIRM switches, nothing else differs.
"""

from __future__ import annotations

import contextlib
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import load, processes
from bench.fill import fill
from bench.processes import Server
from bench.rounds import Figures, Run, in_turns, medians, ratio

STORE_RATE = 1_000
_ANSWER_SECONDS = 0.5
_DRAINED = 20_000
_SLOWLY_DRAINED = 30_000
_DELIVERED = re.compile(r"^outbox_delivered_total (\S+)", re.MULTILINE)


def measure(run: Run) -> None:
    _slow_drain(run, "drain_to_storing")
    _slow_drain(run, "drain_to_storing_slow_answers", "--answer-seconds", str(_ANSWER_SECONDS))
    found = in_turns(3, {"on": lambda: _drain(run, "on"), "off": lambda: _drain(run, "off")})
    run.details["confirmed_drain"] = medians(found)
    _posts(run)


def _slow_drain(run: Run, figure: str, *options: str) -> None:
    """The rate of a drain to that at which Inngest stores, without its first and last tenth.

    Inngest's answers to questions are up to 5 s old, so the last events are confirmed later.
    """
    count = _SLOWLY_DRAINED
    options = ("--store-rate", str(STORE_RATE), *options)
    with _service(run, "on", *options, count=count) as service:
        whole = time.monotonic()
        began, first = _reached(service, count * 0.1)
        ended, last = _reached(service, count * 0.9)
        _reached(service, count)
        whole = time.monotonic() - whole
    per_second = (last - first) / (ended - began)
    run.say(f"drain {per_second:8,.0f}/s, with both ends {count / whole:8,.0f}/s")
    run.found(figure, per_second / STORE_RATE)
    run.details[figure] = {"per_second": per_second, "with_ends": count / whole}


def _reached(service: Server, count: float) -> tuple[float, float]:
    """When at least so many events are delivered, and how many they are then."""
    while (delivered := _delivered(service)) < count:
        time.sleep(0.05)
    return time.monotonic(), delivered


def _drain(run: Run, confirm: str, *, count: int = _DRAINED) -> Figures:
    with _service(run, confirm, count=count) as service:
        began, before = time.monotonic(), service.cpu_seconds()
        _reached(service, count)
        seconds = time.monotonic() - began
        cpu = service.cpu_seconds() - before
    run.say(f"drain, {confirm:3} {count / seconds:8,.0f}/s  cpu {cpu / count * 1e6:5.0f} us")
    return {"per_second": count / seconds, "cpu_us": cpu / count * 1e6}


def _posts(run: Run) -> None:
    """Posts, and their processor time until Inngest holds, or has answered, every event."""
    with _service(run, "on") as on, _service(run, "off") as off:
        found = in_turns(3, {"on": _posting(run, on), "off": _posting(run, off)})
    run.found("posts_confirmed", ratio(found["on"], found["off"], "per_second"))
    run.found("cpu_confirmed", ratio(found["on"], found["off"], "cpu_us"))
    run.details["confirmed_posts"] = medians(found)


def _posting(run: Run, service: Server) -> Callable[[], Figures]:
    cookie = service.cookie("/auth/dev-login")

    def measure() -> Figures:
        before, delivered = service.cpu_seconds(), _delivered(service)
        seen = load.post(
            f"{service.url}/api/route", cookie=cookie, connections=64, seconds=run.seconds
        ).all_good()
        while _delivered(service) < delivered + seen.requests:
            time.sleep(0.05)
        cpu_us = (service.cpu_seconds() - before) / seen.requests * 1e6
        run.say(f"posts {seen.per_second:8,.0f}/s  cpu {cpu_us:5.0f} us")
        return {"per_second": seen.per_second, "cpu_us": cpu_us}

    return measure


@contextlib.contextmanager
def _service(run: Run, confirm: str, *options: str, count: int = 0) -> Iterator[Server]:
    """A service with `count` waiting rows beside a fake Inngest of its own with these `options`."""
    command = [sys.executable, "-m", "inngest_outbox.dev.fake_inngest", "--port", "0", *options]
    with tempfile.TemporaryDirectory(dir=run.folder) as name, processes.started(command) as fake:
        folder = Path(name)
        if count:
            fill(folder / "outbox.db", count)
        with processes.service(fake.url, folder, OUTBOX_CONFIRM=confirm) as service:
            yield service


def _delivered(service: Server) -> float:
    found = _DELIVERED.search(service.text("/metrics"))
    return float(found[1]) if found else 0.0
