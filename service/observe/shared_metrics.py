"""Metrics of several processes in one folder: prometheus-client's multiprocess mode.

prometheus_client reads PROMETHEUS_MULTIPROC_DIR when it is imported, so a process must be started
with it. The figures of a process that has ended stay in the sums; its gauges go.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, multiprocess
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_SUMMED = {
    "process_cpu_seconds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
}


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

    def collect(self) -> Iterable[Metric]:
        """One metric for each figure that can be added up; of ended processes nothing is known."""
        found: dict[str, Metric] = {}
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
