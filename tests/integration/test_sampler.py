from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from inngest_outbox.console.operations.sampler import DELIVERY_STATES, Sampler
from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.observe.metrics import (
    SHARED_FOLDER,
    PrometheusRecorder,
    forget_gauges,
    shared_registry,
)
from inngest_outbox.outbox.figures import Stats
from inngest_outbox.outbox.keys import IdempotencyKey
from inngest_outbox.outbox.model import DeliveryRecord
from inngest_outbox.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from inngest_outbox.relay.sends import BreakerState
from tests.support.outbox_command import one_of_each
from tests.support.storage import LIMITS, PATIENCE_SECONDS, append_all, event


@pytest.fixture
def recorder() -> PrometheusRecorder:
    return PrometheusRecorder()


@pytest.fixture
async def outbox(path: Path, recorder: PrometheusRecorder) -> AsyncIterator[SqliteOutbox]:
    async with open_sqlite_outbox(path, **LIMITS, recorder=recorder) as opened:
        yield opened


def values(recorder: PrometheusRecorder) -> dict[str, float]:
    body, _ = recorder.render()
    return {
        sample.name + "".join(f":{value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


async def test_rows_delivery_sizes_and_ages_are_gauges(
    outbox: SqliteOutbox, recorder: PrometheusRecorder
) -> None:
    await one_of_each(outbox)
    await outbox.delivery.save(DeliveryRecord("backing_off", "503", 1, 2, 3.0, 0))
    await Sampler(outbox.inspector, recorder).sample()
    seen = values(recorder)
    states = ("pending", "delivering", "delivered", "dead")
    assert [seen[f"outbox_rows:{state}"] for state in states] == [1, 1, 1, 1]
    assert set(DELIVERY_STATES) == {*BreakerState, "paused"}
    breakers = {state: seen[f"outbox_delivery_state:{state}"] for state in DELIVERY_STATES}
    assert breakers == {state: float(state == "backing_off") for state in DELIVERY_STATES}
    assert seen["outbox_drain_eta_seconds"] == float("inf")
    assert seen["outbox_database_bytes"] > 0
    assert seen["outbox_oldest_pending_seconds"] >= 0
    assert seen["outbox_sampled_timestamp_seconds"] > 1.7e9


async def test_accepted_counts_events_not_requests(
    outbox: SqliteOutbox, recorder: PrometheusRecorder
) -> None:
    """Rates are those since the sample before."""
    sampler = Sampler(outbox.inspector, recorder)
    await sampler.sample()
    key = IdempotencyKey("k", b"1" * 32)
    await outbox.intake.append(event(), key=key)
    await outbox.intake.append(event(), key=key)
    await asyncio.gather(*(outbox.intake.append(event()) for _ in range(10)))
    seen = values(recorder)
    assert seen["outbox_accepted_total"] == 11
    assert seen["outbox_group_events_sum"] == 12
    assert seen["outbox_commit_seconds_count"] >= 3
    await append_all(outbox, 200)
    await sampler.sample()
    assert sampler.latest is not None
    assert sampler.latest.accepted_rate > 1


async def test_a_store_that_can_not_be_read_leaves_the_last_figures(
    outbox: SqliteOutbox, recorder: PrometheusRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = Sampler(outbox.inspector, recorder)
    await append_all(outbox, 3)
    await sampler.sample()
    before = values(recorder)["outbox_sampled_timestamp_seconds"]

    async def fails() -> Stats:
        raise OutboxUnavailableError

    monkeypatch.setattr(outbox.inspector, "stats", fails)
    with pytest.raises(OutboxUnavailableError):
        await sampler.sample()
    seen = values(recorder)
    assert seen["outbox_rows:pending"] == 3
    assert seen["outbox_sampled_timestamp_seconds"] == before
    assert sampler.latest is not None
    assert sampler.latest.view.pending == 3


async def test_who_watches_sees_each_look(
    outbox: SqliteOutbox, recorder: PrometheusRecorder
) -> None:
    sampler = Sampler(outbox.inspector, recorder)
    await sampler.sample()
    async with contextlib.aclosing(sampler.watch()) as looks, asyncio.timeout(PATIENCE_SECONDS):
        assert (await anext(looks)).view.pending == 0
        await append_all(outbox, 2)
        following = asyncio.ensure_future(anext(looks))
        await asyncio.sleep(0)
        await sampler.sample()
        assert (await following).view.pending == 2
        await append_all(outbox, 1)
        await sampler.sample()  # while the watcher is busy with the one before
        assert (await anext(looks)).view.pending == 3


def test_the_figures_of_processes_are_added_up(tmp_path: Path) -> None:
    script = (
        "import sys; from inngest_outbox.observe.metrics import SHARED_FOLDER, PrometheusRecorder; "
        "shared = PrometheusRecorder(); shared.count('io_errors'); print('ready', flush=True); "
        "sys.stdin.read()"
    )
    environ = os.environ | {SHARED_FOLDER: str(tmp_path)}
    with contextlib.ExitStack() as stack:
        held = []
        for _ in range(3):
            child = subprocess.Popen(
                [sys.executable, "-c", script],
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            stack.enter_context(child)
            assert child.stdout.readline() == b"ready\n"
            text = generate_latest(shared_registry(str(tmp_path))).decode()
            [bytes_] = re.findall(r"\nprocess_resident_memory_bytes (\S+)", text)
            held.append(float(bytes_))
    assert set(re.findall(r"\n(process_\w+) ", text)) == {
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
    }
    assert held[1] > 1.5 * held[0]
    assert held[2] > 1.2 * held[1]


def test_of_several_processes_the_longest_lag_and_the_latest_figure_of_the_outbox_count(
    tmp_path: Path,
) -> None:
    script = (
        "import sys; from inngest_outbox.observe.metrics import SHARED_FOLDER, PrometheusRecorder; "
        "shared = PrometheusRecorder(); names = ('event_loop_lag_seconds', 'wal_bytes'); "
        "[shared.gauge(one, float(sys.argv[1])) for one in names]; "
        "print(shared.render()[0].decode())"
    )
    environ = os.environ | {SHARED_FOLDER: str(tmp_path)}
    for value in ("5", "1"):
        command = [sys.executable, "-c", script, value]
        text = subprocess.check_output(command, env=environ, text=True)
    assert "\noutbox_event_loop_lag_seconds 5.0\n" in text
    assert "\noutbox_wal_bytes 1.0\n" in text
    for path in tmp_path.glob("counter_*.db"):
        forget_gauges(int(path.stem.removeprefix("counter_")), str(tmp_path))
    text = generate_latest(shared_registry(str(tmp_path))).decode()
    assert "outbox_event_loop_lag_seconds" not in text
    assert "outbox_wal_bytes" not in text
    assert "outbox_io_errors_total 0.0" in text
