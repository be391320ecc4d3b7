"""The metrics, and the recorder that exposes them to Prometheus.

Names follow Prometheus' conventions with the prefix `outbox_`: counters end in `_total`; units are
seconds and bytes. `VOCABULARY` lists every metric. The recorder ignores a name that is not in it,
so that measuring never fails. Several processes share a folder: the figures of one that has ended
stay in the sums, its gauges go.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    metrics_core,
    multiprocess,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

_LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600, 86400)
_SHORT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
_LATEST: Literal["livemostrecent"] = "livemostrecent"
# prometheus_client reads it when it is imported: a process is started with it.
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_SUMMED = {
    "process_cpu_seconds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
}


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its kind, its meaning, its labels, and a histogram's buckets."""

    kind: type[Counter | Gauge | Histogram]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    of_outbox: bool = False  # of a gauge that shows the same in every process of an outbox
    worst: bool = False  # of a gauge that every process has: the largest counts, else the latest


VOCABULARY = {
    "accepted": Metric(Counter, "Events accepted and durable; repeats of a key are not counted."),
    "accepted_by_type": Metric(
        Counter, "Events accepted at the path of an event type, by the event's name.", ("name",)
    ),
    "accepted_by_key": Metric(
        Counter, "Events accepted with an event key, by the key's name.", ("key",)
    ),
    "refused": Metric(Counter, "Requests refused, by error code.", ("code",)),
    "journal_put_seconds": Metric(
        Histogram, "One put of accepted events into the journal.", (), _SHORT
    ),
    "journal_put_faults": Metric(Counter, "Tries of a put into the journal that failed."),
    "journal_missing": Metric(Gauge, "Accepted events that the journal still lacks."),
    "journal_objects": Metric(Gauge, "Objects of this outbox in the journal."),
    "journal_away": Metric(Gauge, "1 while the journal takes no puts."),
    "journal_restored": Metric(Counter, "Events that came back from the journal at a start."),
    "delivered": Metric(
        Counter, "Events that Inngest has taken; that it holds, where delivery is confirmed."
    ),
    "resent": Metric(
        Counter, "Events sent again because Inngest answered and lost them, by reason.", ("reason",)
    ),
    "confirm_latency_seconds": Metric(
        Histogram,
        "From Inngest's answer to its store, the oldest event of each request.",
        (),
        _LATENCY,
    ),
    "confirmations_ok": Metric(
        Gauge, "1 while Inngest says which events it holds, or another process asks; 0 while not."
    ),
    "inngest_stored_per_second": Metric(
        Gauge, "Events that Inngest stores a second, lately; 0 while another process asks."
    ),
    "no_runs": Metric(
        Gauge, "1 while the events of a name start no runs and should, by name.", ("name",)
    ),
    "sampled_without_run_ratio": Metric(
        Gauge, "Share of a name's sampled events without a run, 0 without events.", ("name",)
    ),
    "runs_failed_ratio": Metric(
        Gauge, "Share of the runs of a name's sampled events that failed.", ("name",)
    ),
    "held_p95_seconds": Metric(
        Gauge, "From acceptance to held, 95 % of a name's sampled events.", ("name",)
    ),
    "run_start_p95_seconds": Metric(
        Gauge, "From held to the first run's start, 95 % of a name's sampled events.", ("name",)
    ),
    "alarms": Metric(
        Counter, "Tries to tell a change of an alarm: told, failed, given_up.", ("outcome",)
    ),
    "dead": Metric(Counter, "Events that became dead, by reason.", ("reason",)),
    "sends": Metric(Counter, "Requests to Inngest, by outcome.", ("outcome",)),
    "lease_lost": Metric(Counter, "Rows whose answer came after the end of their lease."),
    "relay_drain_overruns": Metric(Counter, "Stops that had to cancel sends in flight."),
    "task_restarts": Metric(Counter, "Background tasks that ended by themselves.", ("task",)),
    "sent_past_dedupe_window": Metric(
        Counter, "Events sent again later than 24 h after they may first have been sent."
    ),
    "sent_with_future_ts": Metric(Counter, "Events that were sent with a ts ahead of the clock."),
    "operator_actions": Metric(Counter, "Operator commands, by action.", ("action",)),
    "send_seconds": Metric(Histogram, "Duration of a request to Inngest.", (), _SHORT),
    "send_events": Metric(Histogram, "Events in a request to Inngest.", (), _SIZES),
    "delivery_latency_seconds": Metric(
        Histogram,
        "From acceptance to delivery, the oldest event of each batch.",
        (),
        _LATENCY,
    ),
    "group_events": Metric(Histogram, "Events that shared one commit.", (), _SIZES),
    "commit_seconds": Metric(Histogram, "Duration of a commit with its sync.", (), _SHORT),
    "clock_skew_seconds": Metric(Gauge, "How far this machine's clock is ahead of Inngest's."),
    "sampled_timestamp_seconds": Metric(
        Gauge, "When the gauges of rows were sampled, in seconds since 1970."
    ),
    "oldest_pending_seconds": Metric(
        Gauge, "Age of the oldest pending or delivering row, 0 without one.", of_outbox=True
    ),
    "rows": Metric(Gauge, "Rows in the outbox, by state.", ("state",), of_outbox=True),
    "oldest_due_seconds": Metric(
        Gauge,
        "Longest wait of a due or delivering row, from its sendAt on if it has one; 0 without one.",
        of_outbox=True,
    ),
    "lone_event_fails": Metric(
        Gauge, "1 while one event fails by itself, no other is sent, and Inngest answers."
    ),
    "delivery_state": Metric(
        Gauge, "1 for the state of delivery, 0 for the others.", ("state",), of_outbox=True
    ),
    "drain_eta_seconds": Metric(
        Gauge,
        "Estimate until the backlog is gone, 0 without one, +Inf while nothing moves.",
        of_outbox=True,
    ),
    "event_loop_lag_seconds": Metric(
        Gauge, "Longest delay of the event loop in the last 10 s.", worst=True
    ),
    "database_bytes": Metric(Gauge, "Size of the outbox's database.", of_outbox=True),
    "no_file_descriptors": Metric(
        Counter,
        "Times that no file descriptor was left, by purpose; accept is tried twice a second.",
        ("purpose",),
    ),
    "io_errors": Metric(
        Counter, "I/O errors of the outbox's disk; after each, the log is written again."
    ),
    "write_failures": Metric(Counter, "Times that the outbox became unable to write."),
    "wal_bytes": Metric(
        Gauge, "Size of SQLite's write-ahead log, 0 on PostgreSQL.", of_outbox=True
    ),
    "inbox_repeats": Metric(Counter, "Events appended in SQL that repeat one under the same key."),
}

_Child = Counter | Gauge | Histogram


class PrometheusRecorder:
    """A Recorder with its own registry, which also has the figures of the process.

    Where PROMETHEUS_MULTIPROC_DIR names a folder, all processes of the service share their figures
    there, and each of them exposes the sum.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._shared = os.environ.get(SHARED_FOLDER)
        if not self._shared:
            ProcessCollector(registry=self._registry)
        self._metrics = {name: self._make(name, one) for name, one in VOCABULARY.items()}
        self._children: dict[tuple[str, tuple[str, ...]], _Child] = {}

    def count(self, name: str, value: float = 1, /, **labels: str) -> None:
        """Add to a counter; an unknown name or a negative value is ignored."""
        child = self._child(name, labels)
        if isinstance(child, Counter) and value > 0:
            child.inc(value)

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        """Set a gauge; an unknown name is ignored."""
        child = self._child(name, labels)
        if isinstance(child, Gauge):
            child.set(value)

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """Add an observation to a histogram; an unknown name is ignored."""
        child = self._child(name, labels)
        if isinstance(child, Histogram):
            child.observe(value)

    def render(self) -> tuple[bytes, str]:
        """The exposition text and its content type."""
        registry = shared_registry(self._shared) if self._shared else self._registry
        return generate_latest(registry), CONTENT_TYPE_LATEST

    def _make(self, name: str, one: Metric) -> _Child:
        full = f"outbox_{name}"
        if one.kind is Histogram:
            return Histogram(
                full, one.help, one.labels, buckets=one.buckets, registry=self._registry
            )
        if one.kind is Gauge:
            mode: Literal["livemax", "livemostrecent"] = "livemax" if one.worst else _LATEST
            return Gauge(
                full, one.help, one.labels, registry=self._registry, multiprocess_mode=mode
            )
        return one.kind(full, one.help, one.labels, registry=self._registry)

    def _child(self, name: str, labels: dict[str, str]) -> _Child | None:
        key = (name, tuple(labels.values()))
        child = self._children.get(key)
        if child is None and name in self._metrics:
            metric = self._metrics[name]
            child = metric.labels(**labels) if labels else metric
            self._children[key] = child
        return child


def shared_registry(folder: str) -> CollectorRegistry:
    """The figures of all processes that share `folder`."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, path=folder)  # type: ignore[no-untyped-call]
    registry.register(_Processes(folder))
    return registry


def forget_gauges(pid: int, folder: str) -> None:
    """A process has ended: its gauges are no longer shown."""
    multiprocess.mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]


class _Processes(Collector):
    """Processor time, memory and handles of the processes together."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def collect(self) -> Iterable[metrics_core.Metric]:
        """One metric for each figure that can be added up; of ended processes nothing is known."""
        found: dict[str, metrics_core.Metric] = {}
        sums: dict[str, float] = defaultdict(float)
        for pid in {path.stem.rpartition("_")[2] for path in self._folder.glob("*.db")}:
            for metric in ProcessCollector(pid=partial(int, pid), registry=None).collect():
                if metric.name in _SUMMED:
                    found[metric.name] = metric
                    sums[metric.name] += sum(sample.value for sample in metric.samples)
        for name, metric in found.items():
            sample = metric.samples[0].name
            metric.samples.clear()
            metric.add_sample(sample, {}, sums[name])
        return found.values()
