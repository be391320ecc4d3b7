from __future__ import annotations

import re

import pytest
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from service.observe.metrics import VOCABULARY, PrometheusRecorder

UNITS = ("seconds", "bytes")
NOT_BASE_UNITS = re.compile(r"(^|_)(ms|milliseconds|minutes|hours|kb|mb|kib|mib|percent)($|_)")


def exposed(name: str) -> str:
    return f"outbox_{name}_total" if VOCABULARY[name].kind is Counter else f"outbox_{name}"


@pytest.mark.parametrize("name", VOCABULARY)
def test_names_and_units_follow_the_conventions(name: str) -> None:
    metric = VOCABULARY[name]
    assert re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]", name)
    assert not NOT_BASE_UNITS.search(name)
    assert not name.endswith(("_total", "_count", "_sum", "_bucket", "_info"))
    for unit in UNITS:
        assert unit not in name or name.endswith(unit)
    assert metric.help.endswith(".")
    assert all(re.fullmatch(r"[a-z][a-z_]*", label) for label in metric.labels)
    assert not {"le", "quantile", "job", "instance"} & set(metric.labels)
    assert (metric.kind is Histogram) == bool(metric.buckets)
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert metric.kind in (Counter, Gauge, Histogram)


def test_what_is_exposed_is_what_prometheus_parses() -> None:
    recorder = PrometheusRecorder()
    for name, metric in VOCABULARY.items():
        labels = dict.fromkeys(metric.labels, "x")
        record = {Counter: recorder.count, Gauge: recorder.gauge, Histogram: recorder.observe}
        record[metric.kind](name, 1.0, **labels)
    body, content_type = recorder.render()
    assert content_type.startswith("text/plain")
    families = {one.name: one for one in text_string_to_metric_families(body.decode())}
    for name, metric in VOCABULARY.items():
        family = families[f"outbox_{name}"]
        assert family.documentation == metric.help
        assert family.samples
    samples = {sample.name for family in families.values() for sample in family.samples}
    assert "process_resident_memory_bytes" in samples
    assert {
        exposed(name) for name in VOCABULARY if VOCABULARY[name].kind is not Histogram
    } < samples


def test_what_is_not_in_the_vocabulary_or_would_go_back_is_ignored() -> None:
    recorder = PrometheusRecorder()
    for record in (recorder.count, recorder.gauge, recorder.observe):
        record("nonsense", 1.0)
        record("task_restarts", -1.0, task="ask")
    for code in ("a", "b", "a"):
        recorder.count("refused", code=code)
    text = recorder.render()[0].decode()
    assert "nonsense" not in text
    assert 'outbox_task_restarts_total{task="ask"} 0.0' in text
    assert 'outbox_refused_total{code="a"} 2.0' in text
    assert 'outbox_refused_total{code="b"} 1.0' in text
