"""This store and other PostgreSQL queues beside an open transaction, in one run, by hand.

`python -m bench.postgres_beside --peers PYTHON [--gone N] [--count N] [--rounds N]`. PYTHON is one
that has faststream-outbox, procrastinate and psycopg-pool; the server needs the extension pgq. Each
queue takes events in and gives them out, alone and then beside a transaction that is open while
`--gone` events go through. The server's processor time for an event is that of all its processes;
compare it, and the share of the rate that is kept. The machine decides the rates.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg
import uvloop

from bench.postgres import measure, peer, run_peer
from service.outbox.schema import migrate
from tests.support.postgres_rows import analyze, catch_up, pass_rows_through
from tests.support.postgres_server import PostgresServer, running_postgres

PEERS = ("faststream", "procrastinate", "pgq")
OURS = "ours"


@dataclass(frozen=True)
class Figures:
    """Events a second, in and out, and the server's processor time for an event in both."""

    into: float
    out: float
    processor_us: float


@dataclass(frozen=True)
class Queue:
    """At an address, `measure` gives the rates in and out, and `fill` leaves dead rows."""

    measure: Callable[[str, int], tuple[float, float]]
    fill: Callable[[str, int], object]


def ours() -> Queue:
    return Queue(lambda url, count: uvloop.run(measure(url, count)), _fill)


def peers(python: str) -> dict[str, Queue]:
    def queue(name: str) -> Queue:
        return Queue(
            lambda url, count: peer(python, name, url, count),
            lambda url, gone: run_peer(python, name, "fill", url, gone),
        )

    return {name: queue(name) for name in PEERS}


def _fill(url: str, gone: int) -> None:
    pass_rows_through(url, gone)
    analyze(url)
    asyncio.run(catch_up(url))


def figures(server: PostgresServer, queue: Queue, url: str, count: int) -> Figures:
    before = server.processor_seconds()
    into, out = queue.measure(url, count)
    return Figures(into, out, (server.processor_seconds() - before) / count * 1e6)


@contextlib.contextmanager
def open_transaction(url: str) -> Iterator[None]:
    with psycopg.connect(url) as idle:
        idle.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        idle.execute("SELECT count(*) FROM pg_class")
        yield
        idle.rollback()


def main() -> None:
    parser = argparse.ArgumentParser(description="PostgreSQL queues beside an open transaction.")
    parser.add_argument("--peers", required=True, help="a Python that has the other queues")
    parser.add_argument("--gone", type=int, default=200_000)
    parser.add_argument("--count", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    queues = {OURS: ours(), **peers(options.peers)}
    alone: dict[str, list[Figures]] = {name: [] for name in queues}
    beside: dict[str, list[Figures]] = {name: [] for name in queues}
    with running_postgres(durable=True) as server, contextlib.ExitStack() as stack:
        if server is None:
            sys.exit("there is no PostgreSQL on this machine")
        urls = {name: stack.enter_context(server.database(name)) for name in queues}
        migrate(urls[OURS])
        for name, queue in queues.items():
            queue.measure(urls[name], options.count)  # makes its tables, warms up
        for _ in range(options.rounds):
            for name, queue in queues.items():
                alone[name].append(figures(server, queue, urls[name], options.count))
        for name, queue in queues.items():
            stack.enter_context(open_transaction(urls[name]))
            queue.fill(urls[name], options.gone)
        for _ in range(options.rounds):
            for name, queue in queues.items():
                beside[name].append(figures(server, queue, urls[name], options.count))
    report(alone, beside, options.gone)


def report(alone: dict[str, list[Figures]], beside: dict[str, list[Figures]], gone: int) -> None:
    print(f"medians; kept: beside a transaction that was open while {gone:,} events went through")
    print("queue            in/s    out/s  server us  in kept  out kept  us then")
    for name, before, then in zip(alone, *map(medians, (alone, beside)), strict=True):
        print(
            f"{name:14}{before.into:7,.0f}{before.out:9,.0f}{before.processor_us:11,.0f}"
            f"{then.into / before.into:9.2f}{then.out / before.out:10.2f}{then.processor_us:9,.0f}"
        )


def medians(seen: dict[str, list[Figures]]) -> list[Figures]:
    return [median(figures) for figures in seen.values()]


def median(seen: list[Figures]) -> Figures:
    return Figures(
        statistics.median(one.into for one in seen),
        statistics.median(one.out for one in seen),
        statistics.median(one.processor_us for one in seen),
    )


if __name__ == "__main__":
    main()
