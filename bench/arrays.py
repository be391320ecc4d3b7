"""Events by Inngest's own intake protocol: arrays of 100 beside single events, and a large request.

Events are delivered to the sink all the while; each measurement ends when all are delivered.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

from bench import load, processes
from bench.load import Load
from bench.processes import Server
from bench.rounds import Figures, Run, in_turns, median, medians, ratio

KEY = "a-key-of-the-benchmark-only"
EVENTS = 100
SINGLE_CONNECTIONS = 64
ARRAY_CONNECTIONS = 8
LARGE_BYTES = 3 * 1024 * 1024
_LARGE_EVERY_SECONDS = 0.5
_BESIDE_RATE = 200.0
_BESIDE_CONNECTIONS = 256
_EVENT = {"name": "shop/order.paid", "data": {"orderId": "o-1795", "amount": 42.5}}
_SINGLE = json.dumps(_EVENT)
_ARRAY = json.dumps([_EVENT] * EVENTS)


def measure(run: Run) -> None:
    with processes.sink() as sink, _service(run, sink.url) as service:
        _arrays_beside_single_events(run, service)
        _beside_a_large_request(run, service)
    with _service(run, sink.url) as service:
        _in_and_out(run, service, sink.port)


@contextlib.contextmanager
def _service(run: Run, inngest_url: str) -> Iterator[Server]:
    settings = {
        "OUTBOX_EVENT_KEYS": f"bench:{KEY}",
        "OUTBOX_MAX_BYTES_PER_USER": "100GiB",
        "LOG_LEVEL": "warning",
    }
    with (
        tempfile.TemporaryDirectory(dir=run.folder) as name,
        processes.service(inngest_url, Path(name), **settings) as service,
    ):
        yield service


def _arrays_beside_single_events(run: Run, service: Server) -> None:
    found = in_turns(
        run.rounds,
        {
            "single": lambda: _events(run, service, _SINGLE, 1, SINGLE_CONNECTIONS),
            "arrays": lambda: _events(run, service, _ARRAY, EVENTS, ARRAY_CONNECTIONS),
        },
    )
    run.details["arrays"] = medians(found)
    run.found("arrays_per_second", median(found["arrays"], "per_second"))
    run.found("arrays_to_single", ratio(found["arrays"], found["single"], "per_second"))
    run.found("cpu_array_event", median(found["arrays"], "cpu_us"))


def _events(run: Run, service: Server, body: str, events: int, connections: int) -> Figures:
    """Events a second; the service's processor time of one, from its post to its delivery."""
    before = service.cpu_seconds()
    url = f"{service.url}/e/{KEY}"
    posts = load.post(url, connections=connections, seconds=run.seconds, body=body).all_good()
    processes.wait_until_delivered(service)
    cpu = service.cpu_seconds() - before
    return {
        "per_second": posts.per_second * events,
        "cpu_us": cpu / (posts.requests * events) * 1e6,
        "p50_ms": posts.p50,
        "p99_ms": posts.p99,
    }


def _in_and_out(run: Run, service: Server, port: int) -> None:
    """Processor time for events that nobody takes, then for their delivery to a sink at `port`."""
    found = [_one_in_and_out(run, service, port) for _ in range(run.rounds)]
    run.found("cpu_array_in", median(found, "in_us"))
    run.found("cpu_array_out", median(found, "out_us"))


def _one_in_and_out(run: Run, service: Server, port: int) -> Figures:
    url, before = f"{service.url}/e/{KEY}", service.cpu_seconds()
    load.post(url, connections=ARRAY_CONNECTIONS, seconds=run.seconds * 2, body=_ARRAY)
    posted = service.cpu_seconds()
    events = processes.undelivered(service)
    with processes.sink(port):
        processes.wait_until_delivered(service)
    out = service.cpu_seconds() - posted
    return {"in_us": (posted - before) / events * 1e6, "out_us": out / events * 1e6}


def _beside_a_large_request(run: Run, service: Server) -> None:
    found = in_turns(
        run.rounds,
        {
            "alone": lambda: _paced(run, service, lambda: None),
            "beside": lambda: _paced(run, service, lambda: _post_large(service)),
        },
    )
    run.details["large_request"] = medians(found, digits=2)
    run.say(f"p99 of single posts alone: {median(found['alone'], 'p99_ms'):.1f} ms")
    run.found("p99_beside_large", median(found["beside"], "p99_ms"))


def _paced(run: Run, service: Server, beside: Callable[[], None]) -> Figures:
    """Single posts at a steady rate, while `beside` runs again and again."""
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            beside()
            ended.wait(_LARGE_EVERY_SECONDS)

    worker = threading.Thread(target=work)
    paced = load.paced(
        f"{service.url}/e/{KEY}",
        connections=_BESIDE_CONNECTIONS,
        seconds=run.seconds * 2,
        rate=_BESIDE_RATE,
        body=_SINGLE,
    )
    with paced as result:
        worker.start()
        seen: Load = result().all_good()
    ended.set()
    worker.join()
    processes.wait_until_delivered(service)
    return {"p50_ms": seen.p50, "p99_ms": seen.p99, "longest_ms": seen.longest}


def _post_large(service: Server) -> None:
    event = json.dumps({**_EVENT, "data": {"text": "x" * 700}})
    body = "[" + ",".join([event] * (LARGE_BYTES // (len(event) + 1))) + "]"
    address = urlsplit(service.url)
    connection = HTTPConnection(address.hostname, address.port, timeout=60)
    connection.request("POST", f"/e/{KEY}", body)
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200, answer.status
    connection.close()
