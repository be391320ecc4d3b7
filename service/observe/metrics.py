"""The vocabulary of what is measured, and the recorder that gives it to Prometheus.

Names follow Prometheus' conventions with the prefix `outbox_`: counters end in `_total`, seconds
and bytes are base units. The table below is the whole vocabulary; a name that is not in it is
dropped, so that measuring never fails.
"""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

_LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600, 86400)
_SHORT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


@dataclass(frozen=True, slots=True)
class Metric:
    """One name: what kind it is, what it says, its labels, its buckets."""

    kind: type[Counter | Gauge | Histogram]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


VOCABULARY = {
    "accepted": Metric(Counter, "Events accepted: durable in the outbox."),
    "refused": Metric(Counter, "Requests refused, by error code.", ("code",)),
    "delivered": Metric(Counter, "Events that Inngest has taken."),
    "dead": Metric(Counter, "Events that became dead, by reason.", ("reason",)),
    "sends": Metric(Counter, "Requests to Inngest, by what they said of it.", ("outcome",)),
    "lease_lost": Metric(Counter, "Rows whose answer came after their lease."),
    "relay_drain_overruns": Metric(Counter, "Stops that had to cancel sends under way."),
    "task_restarts": Metric(Counter, "Background tasks that ended unasked.", ("task",)),
    "sent_past_dedupe_window": Metric(
        Counter, "Events sent again later than 24 h after they may first have left."
    ),
    "sent_with_future_ts": Metric(Counter, "Events whose ts was ahead of the clock when sent."),
    "operator_actions": Metric(Counter, "Operator commands, by action.", ("action",)),
    "send_seconds": Metric(Histogram, "Time of a request to Inngest.", (), _SHORT),
    "send_events": Metric(Histogram, "Events in a request to Inngest.", (), _SIZES),
    "delivery_latency_seconds": Metric(
        Histogram, "From acceptance to delivery, oldest event of each batch.", (), _LATENCY
    ),
    "group_events": Metric(Histogram, "Events that shared one commit.", (), _SIZES),
    "commit_seconds": Metric(Histogram, "Time of a commit with its sync.", (), _SHORT),
    "clock_skew_seconds": Metric(Gauge, "How far our clock is ahead of Inngest's."),
    "sampled_timestamp_seconds": Metric(
        Gauge, "When the outbox was last looked at for these gauges, in seconds since 1970."
    ),
    "oldest_pending_seconds": Metric(
        Gauge, "Age of the oldest row that is not settled, 0 without one."
    ),
    "rows": Metric(Gauge, "Rows in the outbox, by state.", ("state",)),
    "oldest_due_seconds": Metric(Gauge, "Age of the oldest row that is due, 0 without one."),
    "delivery_state": Metric(Gauge, "1 for the delivery's state, 0 for the others.", ("state",)),
    "drain_eta_seconds": Metric(
        Gauge, "Estimate until the backlog is gone, 0 without one, +Inf while nothing moves."
    ),
    "event_loop_lag_seconds": Metric(Gauge, "How late the event loop woke up, at worst, lately."),
    "database_bytes": Metric(Gauge, "Size of the outbox's database."),
    "wal_bytes": Metric(Gauge, "Size of its write-ahead log."),
    "notify_ok": Metric(Gauge, "1 while wake-ups between processes arrive, or none are needed."),
}

_Child = Counter | Gauge | Histogram


class PrometheusRecorder:
    """The Recorder over a registry of its own, with the process's own figures."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._metrics = {name: self._make(name, one) for name, one in VOCABULARY.items()}
        self._children: dict[tuple[str, tuple[str, ...]], _Child] = {}

    def count(self, name: str, value: float = 1, /, **labels: str) -> None:
        """See Recorder.count."""
        child = self._child(name, labels)
        if isinstance(child, Counter) and value > 0:
            child.inc(value)

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        """See Recorder.gauge."""
        child = self._child(name, labels)
        if isinstance(child, Gauge):
            child.set(value)

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """See Recorder.observe."""
        child = self._child(name, labels)
        if isinstance(child, Histogram):
            child.observe(value)

    def render(self) -> tuple[bytes, str]:
        """The exposition text and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def _make(self, name: str, one: Metric) -> _Child:
        full = f"outbox_{name}"
        if one.kind is Histogram:
            return Histogram(
                full, one.help, one.labels, buckets=one.buckets, registry=self._registry
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
