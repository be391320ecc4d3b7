"""What a service says of itself: its log and its figures."""

from __future__ import annotations

import json
import math
import os
import re
import select
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from inngest_outbox.observe import logs
from inngest_outbox.observe.logs import LogStream, timestamp
from inngest_outbox.observe.metrics import VOCABULARY, PrometheusRecorder
from tests.support.storage import eventually

MOST_LINES = 50_000
FILL = b"x" * 100_000 + b"\n"  # more than a pipe takes


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


async def stream_to_a_full(pipe: int) -> LogStream:
    full = select.poll()
    full.register(pipe, select.POLLOUT)
    stream = LogStream(pipe)
    stream.write_line(FILL)
    stream.flush()
    await eventually(lambda: not full.poll(0))
    return stream


def begun_to_read(pipe: int) -> tuple[threading.Thread, list[bytes]]:
    """A thread that reads until the end is told, and what it has read."""
    seen: list[bytes] = []
    read = threading.Thread(target=_read, args=(pipe, seen), daemon=True)
    read.start()
    return read, seen


async def test_lines_beyond_the_limit_are_dropped_and_counted(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    began = timestamp()
    stream = await stream_to_a_full(writing)
    for _ in range(MOST_LINES + 3):
        stream.write_line(b"a\n")
    read, seen = begun_to_read(reading)
    await eventually(lambda: b'"log_lines_lost"' in b"".join(seen))
    stream.write_line(b"b\n")
    stream.close()
    await eventually(lambda: b"".join(seen).endswith(b"\nb\n"))
    os.write(writing, b"end")
    read.join(60)
    lines = b"".join(seen).splitlines()[1:]
    assert lines[:-3] == [b"a"] * MOST_LINES
    lost = json.loads(lines[-3])
    assert began <= lost.pop("timestamp") <= timestamp()
    assert lost == {"event": "log_lines_lost", "level": "warning", "count": 3}
    assert lines[-2:] == [b"b", b"end"]


async def test_a_close_writes_what_came_while_the_reader_was_slow(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    stream = await stream_to_a_full(writing)
    stream.write_line(b"end")
    stream.close()
    read, _ = begun_to_read(reading)
    await eventually(lambda: not read.is_alive())


def _read(descriptor: int, seen: list[bytes]) -> None:
    while not seen or not seen[-1].endswith(b"end"):
        seen.append(os.read(descriptor, 1024 * 1024))


def test_a_line_reaches_its_reader_with_a_flush_or_a_close_or_soon(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = LogStream(pipe[1])
    stream.write("one\udc80\n")
    assert select.select([pipe[0]], [], [], 10)[0]
    assert os.read(pipe[0], 100) == b"one\\udc80\n"
    stream.close()
    monkeypatch.setattr(logs, "FLUSH_SECONDS", 3600)
    stream = LogStream(pipe[1])
    stream.write("two\n")
    stream.flush()
    assert os.read(pipe[0], 100) == b"two\n"
    stream.write("three\n")
    assert not select.select([pipe[0]], [], [], 0.1)[0]
    stream.close()
    assert os.read(pipe[0], 100) == b"three\n"


def test_a_reader_that_is_gone_is_no_fault() -> None:
    reading, writing = os.pipe()
    stream = LogStream(writing)
    os.close(reading)
    stream.write("one\n")
    stream.close()
    os.close(writing)


def test_a_timestamp_is_in_utc_whatever_the_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    before = time.time()
    said = datetime.fromisoformat(timestamp())
    monkeypatch.undo()
    time.tzset()
    assert said.tzinfo == UTC
    assert before - 0.001 <= said.timestamp() <= time.time()


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (1_795_559_419.0071, "2026-11-24T22:30:19.007Z"),
        (1_795_559_419.9999, "2026-11-24T22:30:19.999Z"),
        (1_795_559_420.0, "2026-11-24T22:30:20.000Z"),
    ],
)
def test_a_line_has_its_moment_in_milliseconds(
    now: float, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: now)
    assert timestamp() == said


UNITS = ("seconds", "bytes")
NOT_BASE_UNITS = re.compile(r"(^|_)(ms|milliseconds|minutes|hours|kb|mb|kib|mib|percent)($|_)")


# The first and the last bound of each histogram, and how many there are.
BOUNDS = {
    **dict.fromkeys(("journal_put_seconds", "send_seconds", "commit_seconds"), (0.0005, 10, 14)),
    **dict.fromkeys(("confirm_latency_seconds", "delivery_latency_seconds"), (0.005, 86_400, 16)),
    **dict.fromkeys(("send_events", "group_events"), (1, 5_000, 12)),
}


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
    if buckets := metric.buckets:
        assert (buckets[0], buckets[-1], len(buckets)) == BOUNDS[name]
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
        bounds = {float(one.labels["le"]) for one in family.samples if "le" in one.labels}
        assert bounds == ({*metric.buckets, math.inf} if metric.buckets else set())
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
