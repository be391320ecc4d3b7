"""Posts per second, beside handlers that do less."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from tests.bench import load, processes


def run(*, quick: bool) -> dict[str, float]:
    rounds, seconds = (3, 2) if quick else (5, 4)
    with (
        tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder,
        processes.sink() as sink,
        processes.handlers(sink.url) as handlers,
        processes.service(sink.url, Path(folder)) as service,
    ):
        cookie = service.cookie("/auth/dev-login")
        other = handlers.cookie("/signed-in/login")
        found: dict[str, list[float]] = {}

        def measure(name: str, server: processes.Server, path: str, cookie: str | None) -> None:
            before = server.cpu_seconds()
            result = load.post(f"{server.url}{path}", cookie=cookie, seconds=seconds)
            if server is service:
                processes.wait_until_delivered(service)
            cpu = (server.cpu_seconds() - before) / max(1, result.requests) * 1e6
            assert result.errors == result.refused == 0, (name, result)
            found.setdefault(name, []).append(result.per_second)
            found.setdefault(f"{name} cpu µs", []).append(cpu)
            print(
                f"  {name:10} {result.per_second:9,.0f}/s  p50 {result.p50:7.2f} ms"
                f"  p99 {result.p99:7.2f} ms  cpu {cpu:6.1f} µs",
                flush=True,
            )

        for _ in range(rounds):
            measure("parse", handlers, "/parse", None)
            measure("outbox", service, "/api/route", cookie)
            measure("session", handlers, "/signed-in/session", other)
            measure("sdk", handlers, "/sdk", None)

        def ratio(a: str, b: str) -> float:
            return statistics.median(x / y for x, y in zip(found[a], found[b], strict=True))

        cpu = ratio("outbox cpu µs", "parse cpu µs")
        print(f"outbox / parse    {ratio('outbox', 'parse'):6.3f}   goal >= 0.45")
        print(f"outbox / session  {ratio('outbox', 'session'):6.3f}")
        print(f"outbox / sdk      {ratio('outbox', 'sdk'):6.1f}   goal >= 20")
        print(f"cpu / parse cpu   {cpu:6.2f}   goal <= 3")
    return {}
