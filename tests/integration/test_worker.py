"""The worker: it connects, runs the function, outlives refusals, and stops with its work done."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import signal

import aiohttp
import pytest
from structlog.testing import capture_logs

from inngest_outbox.config.settings import Settings
from inngest_outbox.documents.bucket import Bucket
from inngest_outbox.documents.index_document import index_function
from inngest_outbox.inngest.address import make_client
from inngest_outbox.inngest.worker import WorkerStatus, WorkerTimings, run_worker
from inngest_outbox.processes.worker import serve_worker_health
from tests.support.fleet import environment, running
from tests.support.free_port import free_port
from tests.support.inngest_gateway import InngestGateway
from tests.support.large_object import LargeObject
from tests.support.notified import notified
from tests.support.storage import PATIENCE_SECONDS, eventually

EVENT = "documents/aws.index"
READY = {"status": "ready", "seconds": 12.3}
REGION = "eu-west-1"
CONTENT = bytes(range(256)) * 5000


@pytest.fixture
def gateway(request):
    """Inngest's side, which refuses as many connections first as a test asks for."""
    return InngestGateway(refusals=getattr(request, "param", 0))


@pytest.fixture
async def settings(gateway, aiohttp_server, monkeypatch, bucket_name):
    """The settings of a worker for that gateway and a bucket."""
    for name in ("INNGEST_API_BASE_URL", "INNGEST_SIGNING_KEY", "INNGEST_ENV"):
        monkeypatch.delenv(name, raising=False)
    server = await aiohttp_server(gateway.app())
    return Settings.load(
        {
            "INNGEST_DEV": str(server.make_url("")).rstrip("/"),
            "AWS_S3_BUCKET": bucket_name,
            "AWS_S3_REGION": REGION,
        }
    )


@pytest.fixture
def status():
    """What the worker reports to its health endpoint."""
    return WorkerStatus()


@pytest.fixture(autouse=True)
def logged():
    """What the worker logs."""
    with capture_logs() as lines:
        yield lines


@pytest.fixture
def slow_seconds():
    """After how long the worker reports that it is not connected."""
    return 2 * PATIENCE_SECONDS


@pytest.fixture
def stop():
    """Set when the worker is to stop."""
    return asyncio.Event()


@pytest.fixture
async def working(settings, status, stop, slow_seconds):
    """A worker at work, which is stopped at the end."""
    client = make_client(settings)
    timings = WorkerTimings(retry_seconds=0.01, slow_seconds=slow_seconds)
    task = asyncio.create_task(run_worker(settings, client, status, EVENT, stop, timings))
    yield task
    stop.set()
    await asyncio.wait_for(task, PATIENCE_SECONDS)
    # The SDK's client has no close of its own; its open socket would be reported later.
    await client._http_client._http_client.aclose()


def events(logged):
    return [line["event"] for line in logged]


@pytest.fixture
def run(gateway):
    """Runs the function on an event with this data; gives how that ends."""

    async def _run(**data):
        return await asyncio.wait_for(gateway.run("e-1", data), PATIENCE_SECONDS)

    return _run


@pytest.mark.usefixtures("working")
async def test_a_document_is_indexed_announced_in_a_step_of_its_own_and_logged(
    run, gateway, logged, s3, bucket_name
):
    await eventually(lambda: "worker_connected" in events(logged))
    for content, place in ((CONTENT, {"bucket": bucket_name}), (b"", {})):
        s3.put_object(Bucket=bucket_name, Key="a", Body=content, ContentType="Text/Plain")
        outcome = await run(documentName="a", **place)
        assert outcome.status == "DONE"
        assert outcome.steps == ("read", "announce")
        assert outcome.output == {
            "documentName": "a",
            "bucket": bucket_name,
            "region": REGION,
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "contentType": "Text/Plain",
        }
        event = gateway.events.pop()
        assert (event["name"], event["id"]) == ("documents/aws.indexed", "e-1-indexed")
        assert event["data"] == outcome.output
    assert gateway.events == []
    runs = ["run_started", "run_finished"]
    assert events(logged) == ["worker_connecting", "worker_connected", *runs, *runs]
    for line in logged[2:]:
        assert (line["event_id"], line["run_id"]) == ("e-1", "r-1")
        assert line["function"] == "documents-index-document"
    assert 0 < logged[3]["seconds"] < PATIENCE_SECONDS


def test_four_runs_at_a_time_and_five_retries_are_asked_for(settings):
    made = index_function(make_client(settings), Bucket("b", REGION), EVENT).get_config("http://w")
    [concurrency] = made.main.concurrency
    [trigger] = made.main.triggers
    assert (concurrency.limit, made.main.steps["step"].retries.attempts) == (4, 5)
    assert (made.main.id.endswith("-index-document"), trigger.event) == (True, EVENT)


@pytest.mark.usefixtures("working")
async def test_what_can_not_be_processed_is_tried_again_only_where_s3_can_not_be_asked(
    run, gateway, logged, s3, bucket_name
):
    """The log does not name the document."""
    s3.put_object(Bucket=bucket_name, Key="a", Body=CONTENT)
    required = "The body needs a documentName that is not blank."
    elsewhere = "the document is in another bucket than this worker's"
    away = "There is no such document in the bucket: upload it first."
    for data, reason in (
        ({}, required),
        ({"documentName": ""}, required),
        ({"documentName": "../a"}, "documentName has a . or .. path segment"),
        ({"documentName": ["a"]}, "documentName is not a string"),
        ({"documentName": "a", "bucket": "b"}, elsewhere),
        ({"documentName": "a", "bucket": None}, elsewhere),
        ({"documentName": "private.pdf", "bucket": bucket_name}, away),
    ):
        outcome = await run(**data)
        told = (outcome.status, outcome.no_retry, outcome.output["message"])
        assert told == ("ERROR", True, reason)
    failed = [line for line in logged if line["event"] == "run_failed"]
    assert [(line["event_id"], line["retriable"]) for line in failed] == [("e-1", False)] * 7
    assert "private" not in str(logged)
    assert gateway.events == []
    s3.delete_object(Bucket=bucket_name, Key="a")
    s3.delete_bucket(Bucket=bucket_name)
    outcome = await run(documentName="a", bucket=bucket_name)
    assert (outcome.status, outcome.no_retry) == ("ERROR", False)


@pytest.fixture
async def large_object(aiohttp_server, s3_environment):
    """An S3 API whose one object is held back until the test releases it."""
    large = LargeObject(size_bytes=len(CONTENT))
    server = await aiohttp_server(large.app())
    s3_environment.setenv("AWS_ENDPOINT_URL_S3", str(server.make_url("")).rstrip("/"))
    return large


async def test_a_stop_lets_the_run_at_work_finish(
    bucket_name, large_object, gateway, working, stop
):
    run = asyncio.create_task(gateway.run("e-1", {"documentName": "a", "bucket": bucket_name}))
    await asyncio.wait_for(large_object.asked.wait(), PATIENCE_SECONDS)
    stop.set()
    await asyncio.wait_for(gateway.paused.wait(), PATIENCE_SECONDS)
    assert not working.done()
    large_object.released.set()
    await asyncio.wait_for(working, PATIENCE_SECONDS)
    assert gateway.replied == 1
    run.cancel()


async def test_a_lost_connection_and_the_stop_are_logged(logged, gateway, working, status, stop):
    await eventually(lambda: status.connected)
    await gateway.drop()
    await eventually(lambda: "worker_disconnected" in events(logged))
    await eventually(lambda: status.connected)
    stop.set()
    await asyncio.wait_for(working, PATIENCE_SECONDS)
    assert events(logged)[-2:] == ["worker_stopping", "worker_stopped"]
    assert not status.connected


@pytest.mark.parametrize("gateway", [10**6], indirect=True)
async def test_a_refused_connection_says_why_and_is_tried_again(
    logged, gateway, run, working, status, bucket_name
):
    await eventually(lambda: "worker_disconnected" in events(logged))
    [reason] = {line["reason"] for line in logged if line["event"] == "worker_disconnected"}
    assert reason == "unauthorized"
    assert status.reason == reason
    gateway.refusals = 2
    await run(documentName="nothing", bucket=bucket_name)
    assert gateway.refusals == 0
    assert not working.done()


@pytest.mark.parametrize("slow_seconds", [0.2])
@pytest.mark.parametrize("gateway", [10**6], indirect=True)
@pytest.mark.usefixtures("working")
async def test_a_connection_that_takes_its_time_is_reported(logged, gateway, status):
    gateway.refusal = 500
    await eventually(lambda: "worker_not_connected" in events(logged))
    assert "no connection to http://127.0.0.1" in status.reason


async def test_health_says_whether_the_worker_is_connected(status, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(WorkerStatus, "seconds", 12.34)
    async with (
        serve_worker_health(status, "127.0.0.1", 0) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http,
    ):
        status.disconnect("no connection yet")
        async with http.get("/readyz") as answer:
            assert answer.status == 503
            told = {"status": "unready", "faults": ["no connection yet"], "seconds": 12.3}
            assert await answer.json() == told
        async with http.get("/healthz") as answer:
            assert (answer.status, await answer.json()) == (200, {"status": "ok"})
        status.connect()
        async with http.get("/readyz") as answer:
            assert (answer.status, await answer.json()) == (200, READY)
    assert caplog.records == []


async def test_a_process_of_its_own_tells_its_manager_and_answers_at_its_host(short_path):
    port = free_port()
    with notified(short_path) as manager:
        seldom = {"WATCHDOG_USEC": "3000000000"}  # once in this test
        changes = {"HOST": "127.0.0.2", "LOG_FORMAT": "console", **manager.environment, **seldom}
        given = environment("sqlite:///none", "http://127.0.0.1:1", **changes)
        command = ("worker", "--health-port", str(port))
        async with running(*command, environment=given, ready=None) as worker:
            async with aiohttp.ClientSession(f"http://127.0.0.2:{port}") as http:
                await eventually(lambda: is_unready(http))
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)
            for _ in range(2):  # as a terminal does that closes
                worker.process.send_signal(signal.SIGHUP)
            assert await worker.ended() == 0
            assert worker.lines
            assert [line for line in worker.lines if "[warning  ] " not in line] == []
        said = [manager.bound.recv(4096) for _ in range(3)]
        ready = b"READY=1\nSTATUS=Serving the function"
        assert said == [ready, b"WATCHDOG=1", b"STOPPING=1\nSTATUS=Stopping"]


async def is_unready(http):
    with contextlib.suppress(aiohttp.ClientConnectorError):
        async with http.get("/readyz") as answer:
            return answer.status == 503
    return False


def test_a_state_lasts_from_its_change_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    status, lasted = WorkerStatus(), []
    for at, is_connected in ((5, False), (7, True), (9, True), (10, False), (12, False)):
        now[0] = float(at)
        if is_connected:
            status.connect()
        else:
            status.disconnect("gone")
        lasted.append(status.seconds)
    assert lasted == [5, 0, 2, 0, 2]
    assert (status.connected, status.reason) == (False, "gone")
