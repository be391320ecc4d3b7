"""The store on PostgreSQL beside SQLite and beside other queues, in one run, by hand.

`python -m bench.postgres [--peers PYTHON] [--count N] [--write]`. PYTHON is one that has
faststream-outbox and procrastinate, in an environment of its own. Each figure is the median of
rounds that take turns, on a server of its own that syncs. Compare the ratios, not the rates: the
machine decides those. `--write` writes the statements for an event to baseline_postgres.json.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import uvloop

from bench.load import post
from bench.processes import postgres, service_environment, sink, started
from inngest_outbox.bootstrap.stores import read_event
from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.outbox.model import ClaimRequest, Settlement
from inngest_outbox.outbox.postgres.store import ServedPostgresOutbox, open_postgres_outbox
from inngest_outbox.outbox.schema import migrate
from inngest_outbox.outbox.sqlite.store import open_sqlite_outbox
from tests.support.postgres_server import PostgresServer
from tests.support.storage import event

CONCURRENCY = 64
SENDERS = 4
_IDLE_SECONDS = 1.0
BASELINE = Path(__file__).with_name("baseline_postgres.json")
_ROOT = Path(__file__).parents[1]
_LIMITS = {"max_pending": 10**9, "max_pending_per_user": 10**9}
_ASK = ClaimRequest(500, 2**20, 60.0, 0.2)
_KINDS = {"APPEND": "append", "CLAIM": "claim", "SETTLE": "settle"}


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[Any]:
    if url.startswith("sqlite"):
        async with open_sqlite_outbox(Path(url.removeprefix("sqlite:///")), **_LIMITS) as outbox:
            yield outbox
    else:
        async with open_postgres_outbox(
            url, **_LIMITS, recorder=NullRecorder(), read_event=read_event
        ) as outbox:
            yield outbox


async def take_in(outbox: Any, count: int) -> float:
    """The seconds that `count` posts take, CONCURRENCY at a time."""
    left = iter([event(f"u-{n % 50}", size=400) for n in range(count)])

    async def append() -> None:
        for each in left:
            await outbox.intake.append(each)

    began = time.perf_counter()
    await asyncio.gather(*(append() for _ in range(CONCURRENCY)))
    return time.perf_counter() - began


async def drain(outbox: Any, count: int | None) -> float:
    """The seconds that SENDERS take to claim and settle `count` events, None for all there are."""
    began = settled_at = time.perf_counter()
    done = 0
    settled = asyncio.Event()

    async def send() -> None:
        nonlocal done, settled_at
        while count is None or done < count:
            batch = await outbox.queue.claim(_ASK)
            await outbox.queue.settle(
                Settlement(batch.claim, [entry.seq for entry in batch.entries])
            )
            done += len(batch.entries)
            settled_at = time.perf_counter()
            settled.set()

    senders = [asyncio.create_task(send()) for _ in range(SENDERS)]
    if count is None:
        with contextlib.suppress(TimeoutError):
            while True:
                settled.clear()
                async with asyncio.timeout(_IDLE_SECONDS):
                    await settled.wait()
    else:
        await asyncio.wait(senders, return_when=asyncio.FIRST_COMPLETED)
    for sender in senders:
        sender.cancel()
    await asyncio.gather(*senders, return_exceptions=True)
    return settled_at - began


async def costs(outbox: ServedPostgresOutbox, bursts: int = 50) -> dict[str, dict[str, int]]:
    """The statements, each one round trip, that bursts of CONCURRENCY posts and their drain take.

    What a process does by the clock (counts, wake-ups, leases) is not an event's and is left out.
    """
    tally: Counter[str] = Counter()
    run = outbox.pool.run

    async def counted(statement: str, *given: Any, **options: Any) -> Any:
        tally.update([_KINDS[statement]] if statement in _KINDS else ())
        return await run(statement, *given, **options)

    outbox.pool.run = counted  # type: ignore[method-assign]
    for _ in range(bursts):
        await asyncio.gather(*(outbox.intake.append(event()) for _ in range(CONCURRENCY)))
    accept = dict(tally)
    tally.clear()
    left = bursts * CONCURRENCY
    while left:
        batch = await outbox.queue.claim(_ASK)
        await outbox.queue.settle(Settlement(batch.claim, [entry.seq for entry in batch.entries]))
        left -= len(batch.entries)
    return {"accept": accept, "drain": dict(tally), "events": {"events": bursts * CONCURRENCY}}


async def measure(url: str, count: int) -> tuple[float, float]:
    """Posts and drained events a second."""
    async with opened(url) as outbox:
        return count / await take_in(outbox, count), count / await drain(outbox, count)


def in_processes(url: str, count: int, processes: int) -> tuple[float, float]:
    """As `measure`, by several processes at once."""
    rates = []
    for what in ("in", "out"):
        command = [sys.executable, "-m", "bench.postgres", "--worker", what, url]
        workers = [
            subprocess.Popen(
                [*command, str(count // processes)],
                cwd=_ROOT,
                stdout=subprocess.PIPE,
                stdin=subprocess.PIPE,
                text=True,
            )
            for _ in range(processes)
        ]
        for process in workers:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in workers:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        seconds = [float(process.communicate(timeout=120)[0]) for process in workers]
        rates.append(count / max(seconds))
    return rates[0], rates[1]


async def as_worker(what: str, url: str, count: int) -> None:
    async with opened(url) as outbox:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        print(await (take_in(outbox, count) if what == "in" else drain(outbox, None)), flush=True)


def over_http(url: str, processes: int = 1) -> float:
    """Posts a second through the whole service, which delivers to a sink meanwhile."""
    with sink() as inngest, tempfile.TemporaryDirectory() as folder:
        changes = {"OUTBOX_URL": url, "WEB_CONCURRENCY": str(processes), "LOG_LEVEL": "warning"}
        environment = {**service_environment(inngest.url, Path(folder)), **changes}
        command = [sys.executable, "-m", "inngest_outbox", "serve"]
        with started(command, environment, cwd=Path(folder)) as service:
            cookie = service.cookie("/auth/dev-login")
            address = f"{service.url}/api/route"
            post(address, cookie=cookie, connections=CONCURRENCY, seconds=1)
            return post(address, cookie=cookie, connections=CONCURRENCY, seconds=3).per_second


def whole_services(server: PostgresServer, rounds: int) -> None:
    seen: dict[str, list[float]] = {}
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            seen.setdefault("SQLite", []).append(over_http(f"sqlite:///{folder}/outbox.db"))
        for processes in (1, 2):
            with server.database(f"http{number}") as url:
                name = f"PostgreSQL, {processes} process(es)"
                seen.setdefault(name, []).append(over_http(url, processes))
    for name, rates in seen.items():
        print(f"{name:28}{statistics.median(rates):10,.0f} posts/s over HTTP")


def run_peer(python: str, name: str, what: str, url: str, count: int) -> float:
    """The seconds that another queue took; see postgres_peers.py."""
    script = str(Path(__file__).with_name("postgres_peers.py"))
    command = [python, script, name, what, url, str(count), str(CONCURRENCY)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900)
    return float(said.stdout.splitlines()[-1])


def peer(python: str, name: str, url: str, count: int) -> tuple[float, float]:
    """Events a second, in and out, of another queue."""
    into, out = (count / run_peer(python, name, what, url, count) for what in ("in", "out"))
    return into, out


async def beside_an_idle_transaction(url: str, count: int, rounds: int) -> list[float]:
    """Events a second through posts and drain: one round before, the others beside it."""
    rates = []
    async with opened(url) as outbox:

        async def flow() -> float:
            began = time.perf_counter()
            await asyncio.gather(take_in(outbox, count), drain(outbox, count))
            return count / (time.perf_counter() - began)

        await flow()
        rates.append(await flow())
        async with await psycopg.AsyncConnection.connect(url) as idle:
            await idle.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
            await idle.execute("SELECT count(*) FROM outbox.ready")
            rates += [await flow() for _ in range(rounds)]
            await idle.rollback()
    return rates


def rounds_of(
    server: PostgresServer, count: int, rounds: int, python: str | None
) -> dict[str, list[tuple[float, float]]]:
    seen: dict[str, list[tuple[float, float]]] = {}
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            sqlite = f"sqlite:///{folder}/outbox.db"
            seen.setdefault("SQLite", []).append(uvloop.run(measure(sqlite, count)))
        with server.database(f"bench{number}") as url:
            migrate(url)
            seen.setdefault("PostgreSQL", []).append(uvloop.run(measure(url, count)))
        for processes in (1, 2):
            with server.database(f"bench{number}") as url:
                migrate(url)
                rates = in_processes(url, count, processes)
                seen.setdefault(f"PostgreSQL, {processes} process(es)", []).append(rates)
        for name in ("faststream", "procrastinate") if python else ():
            with server.database(f"bench{number}") as url:
                fewer = count // 4
                seen.setdefault(name, []).append(peer(python or "", name, url, fewer))
    return seen


def report(seen: dict[str, list[tuple[float, float]]]) -> None:
    median = {
        name: tuple(statistics.median(rates) for rates in zip(*figures, strict=True))
        for name, figures in seen.items()
    }
    ours = median["PostgreSQL"]
    print(f"{'':28}{'in/s':>10}{'out/s':>10}   ours is, in and out")
    for name, (accept, out) in median.items():
        print(
            f"{name:28}{accept:10,.0f}{out:10,.0f}{ours[0] / accept:9.2f} x{ours[1] / out:8.2f} x"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="The store on PostgreSQL beside others.")
    parser.add_argument("--peers", help="a Python with faststream-outbox and procrastinate")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="write the baseline of statements")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        what, url, count = options.worker
        uvloop.run(as_worker(what, url, int(count)))
        return
    with postgres(durable=True) as server:
        with server.database("costs") as url:
            migrate(url)
            found = uvloop.run(_costs(url))
        print(json.dumps(found))
        if options.write:
            BASELINE.write_text(json.dumps(found, indent=1) + "\n")
        whole_services(server, options.rounds)
        report(rounds_of(server, options.count, options.rounds, options.peers))
        with server.database("idle") as url:
            migrate(url)
            before, *beside = uvloop.run(beside_an_idle_transaction(url, options.count, 5))
        shown = ", ".join(f"{rate / before:.2f}" for rate in beside)
        print(
            f"beside an idle transaction, each {options.count:,} events: {shown} of the rate before"
        )


async def _costs(url: str) -> dict[str, dict[str, int]]:
    async with opened(url) as outbox:
        return await costs(outbox)


if __name__ == "__main__":
    main()
