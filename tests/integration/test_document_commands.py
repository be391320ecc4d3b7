"""`python -m inngest_outbox worker` and `check`: what they print, and how they end."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from inngest_outbox.config.settings import Settings
from inngest_outbox.dev.demo.demo import Pace
from inngest_outbox.dev.fake_inngest.faults import ScriptedAnswer
from inngest_outbox.dev.fake_inngest.server import FakeInngest, FakeOptions
from tests.support.fleet import ROOT
from tests.support.service_command import service_command
from tests.support.storage import PATIENCE_SECONDS


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Run a command in an empty folder, in this process."""
    monkeypatch.chdir(tmp_path)
    return service_command


def test_a_worker_that_can_not_start_exits_with_a_sentence_for_each_fault(tmp_path):
    def said(code: int, *options: str, **environ: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "inngest_outbox", "worker", *options],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{ROOT}/service", **environ},
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert done.returncode == code
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    assert "Run the Inngest function that reads documents" in said(0, "--help")
    told = said(2)
    assert "configuration: AWS_S3_BUCKET: required by the worker" in told
    assert "configuration: AWS_S3_REGION: required by the worker" in told
    for port in ("65536", "-1", "http"):
        assert "Invalid value for '--health-port'" in said(2, f"--health-port={port}")
    bucket = {"AWS_S3_BUCKET": "documents", "AWS_S3_REGION": "eu-west-1"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for given in ({}, {"HOST": "192.0.2.1"}):  # any port of another machine's address
            told = said(1, "--health-port", "0" if given else port, **bucket, **given)
            assert told.startswith("can't start: ")


def test_a_faulty_file_of_event_types_ends_every_start_with_its_entry(command, tmp_path):
    faulty = tmp_path / "types.yaml"
    for field, fault in (
        ("whom: all", "types.yaml: entry 1 (a/b): whom is no field of an event type"),
        ("encrypt: true", "configuration: OUTBOX_ENCRYPTION_KEY: required by a/b"),
    ):
        faulty.write_text(f"types: [{{name: a/b, path: /api/a, body: {{type: object}}, {field}}}]")
        for name in ("check", "serve", "worker"):
            done = command(name, EVENT_TYPES_FILE=str(faulty))
            assert done.exit_code == 2
            assert fault in done.stderr


def test_check_tells_the_event_types(command, tmp_path):
    own = "{path: /api/route, name: files/uploaded, who: [key, session]}"
    (tmp_path / "types.yaml").write_text(f"types: [{OTHER}, {own}]")
    done = command("check", EVENT_TYPES_FILE=" types.yaml ", APP_SETTINGS_FILE=" ")
    assert done.exit_code == 0
    assert [line for line in done.stderr.splitlines() if "event type" in line] == [
        "event type: a/b at POST /api/a, by session",
        "event type: files/uploaded at POST /api/route, by key, session",
    ]


def test_migrate_says_what_it_applied_and_then_that_nothing_is_left(command, tmp_path, monkeypatch):
    for said in ("applied 0001_first\n", "nothing to apply\n"):
        done = command("migrate", OUTBOX_URL=f"sqlite:///{tmp_path / 'outbox.db'}")
        assert (done.exit_code, done.stdout) == (0, said)
    monkeypatch.setattr("inngest_outbox.outbox.schema.migrate", lambda _: ["0002_a", "0003_b"])
    assert command("migrate").stdout == "applied 0002_a\napplied 0003_b\n"


def test_the_demo_has_its_pace_and_ends_with_its_code(command, monkeypatch):
    paces = []

    async def demo(pace):
        paces.append(pace)
        return 1

    monkeypatch.setattr("inngest_outbox.dev.demo.demo.demo", demo)
    assert command("demo", "--posts-per-second", "0.5").exit_code == 2
    assert command("demo").exit_code == 1
    assert command("demo", "--quick", "--posts-per-second", "60").exit_code == 1
    assert paces == [Pace(200), Pace(60, calm_seconds=1, outage_seconds=2, after_seconds=1)]


OTHER = "{name: a/b, path: /api/a, document: true, body: {type: object, required: [documentName]}}"


@pytest.mark.parametrize("changed", ["enabled: false", "document: false, data: {}"])
def test_a_worker_without_a_documents_event_exits_with_a_sentence(
    command, tmp_path, monkeypatch, changed
):
    monkeypatch.setattr("inngest_outbox.processes.main.configure_logs", lambda **_: None)
    (tmp_path / "types.yaml").write_text(f"types: [{OTHER}, {{path: /api/route, {changed}}}]")
    done = command("worker", EVENT_TYPES_FILE="types.yaml")
    assert done.exit_code == 2
    assert "EVENT_TYPES_FILE: the worker needs a document at /api/route" in done.stderr


def test_a_worker_serves_the_documents_event_by_its_name(command, tmp_path, monkeypatch):
    async def run_worker(settings, client, status, event_name, stop):
        served.append((client.app_id, event_name))

    served = []
    monkeypatch.setattr("inngest_outbox.processes.worker.run_worker", run_worker)
    monkeypatch.setattr("inngest_outbox.processes.main.configure_logs", lambda **_: None)
    (tmp_path / "types.yaml").write_text("types: [{path: /api/route, name: files/uploaded}]")
    assert command("worker", EVENT_TYPES_FILE="types.yaml").exit_code == 0
    assert served == [("documents", "files/uploaded")]


def test_check_tells_that_the_storage_is_well(command, s3_url, bucket_name):
    done = command(
        "check",
        AWS_S3_BUCKET=bucket_name,
        AWS_S3_REGION="eu-west-1",
        AWS_ENDPOINT_URL_S3=s3_url,
        AWS_ACCESS_KEY_ID="testing",
        AWS_SECRET_ACCESS_KEY="testing",
    )
    assert done.exit_code == 0
    assert "storage: ok" in done.stderr
    assert "OUTBOX_RETENTION=7d" in done.stdout


def test_check_fails_when_the_configured_bucket_can_not_be_used(command):
    done = command("check", AWS_S3_BUCKET="documents", AWS_S3_REGION="eu-west-1")
    assert done.exit_code == 1
    assert "storage: No usable AWS credentials were found." in done.stderr


def test_check_fails_on_misspelt_variables(command):
    done = command("check", LOG_LEVLE="info", OUTBOX_RETENSION="1d")
    assert done.exit_code == 1
    words = "no variable of the service; did you mean"
    assert done.stderr.splitlines()[-2:] == [
        f"LOG_LEVLE: {words} LOG_LEVEL?",
        f"OUTBOX_RETENSION: {words} OUTBOX_RETENTION?",
    ]


SHOWN = {
    "PORT": "0",
    "OUTBOX_BATCH_BYTES": "2097152",
    "OUTBOX_SEND_TIMEOUT": "1500ms",
    "OUTBOX_DRAIN_SECONDS": "0s",
    "OUTBOX_NO_RUN_AFTER": "250ms",
    "OUTBOX_RETENTION": "30d",
    "OUTBOX_PAYLOAD_RETENTION": "36h",
    "OUTBOX_MAX_BYTES": "",
    "OPERATOR_EMAILS": "ada@example.com,bob@example.com",
}


def test_check_names_the_storage_variables_that_are_missing(command):
    keys = {"OUTBOX_EVENT_KEYS": "shop:tell-nobody,cron:tell-no-one"}
    keys |= {"ALARM_URL": "https://chat.example/tell-nobody", "ALARM_SECRET": f"whsec_{'A' * 32}"}
    emails = "ada@example.com, bob@example.com"
    given = {"OUTBOX_BATCH_BYTES": "2MiB", "OUTBOX_SEND_TIMEOUT": "1.5s", "OPERATOR_EMAILS": emails}
    done = command("check", **{**SHOWN, **given, **keys})
    assert done.exit_code == 0
    told = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert list(told) == list(Settings.variables())
    hidden = {"OUTBOX_EVENT_KEYS": "********,********", "ALARM_URL": "********"}
    assert told == {**told, **SHOWN, **hidden, "ALARM_SECRET": "********"}
    assert command("check", **{**told, **keys}).stdout == done.stdout
    assert re.fullmatch(
        r"event type: documents/aws\.index at POST /api/route, by session\n"
        r"inngest: http://127\.0\.0\.1:8288/ .*\nconfirmation: off \(.*\n"
        r"storage: not configured: AWS_S3_REGION, AWS_S3_BUCKET\n",
        done.stderr,
    )


async def test_check_tells_whether_inngest_takes_the_key(command, inngest_api):
    good = await asyncio.to_thread(command, "check", INNGEST_DEV=inngest_api.url)
    assert good.exit_code == 0
    assert f"inngest: {inngest_api.url} answers and takes the event key" in good.stderr
    refuses, answers = "refuses the event key", "does not answer as Inngest does"
    for status, words in ((401, refuses), (403, refuses), (404, refuses), (500, answers)):
        inngest_api.faults.add(ScriptedAnswer(status), times=1)
        bad = await asyncio.to_thread(command, "check", INNGEST_DEV=inngest_api.url)
        assert bad.exit_code == 1
        assert f"inngest: {inngest_api.url} {words} (HTTP {status})" in bad.stderr


def test_check_tells_of_an_inngest_that_is_configured_and_away(command):
    done = command("check", INNGEST_DEV="http://127.0.0.1:1/\x1b")
    assert done.exit_code == 1
    assert (
        "inngest: http://127.0.0.1:1/\ufffd does not answer as Inngest does (Client" in done.stderr
    )


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://u:tell-nobody@h/x",
        "postgresql://u:tell/@nobody@h",
        "postgresql:///x?password=tell-nobody",
        "postgresql://h/x?sslpassword=tell-nobody",
    ],
)
def test_check_hides_the_password_in_an_address(command, address):
    done = command("check", OUTBOX_URL=address)
    assert "OUTBOX_URL=postgresql://" in done.stdout
    assert "********" in done.stdout
    assert not re.search("tell|nobody", done.stdout)
    assert done.exit_code == 1
    assert "\noutbox: " in done.stderr


def test_check_hides_the_token_in_a_tracing_address(command):
    endpoint = "https://collector.example.com/v1?api-token=tell-nobody"
    done = command("check", OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
    assert "OTEL_EXPORTER_OTLP_ENDPOINT=https://collector" in done.stdout
    assert "tell" not in done.stdout


@pytest.mark.parametrize("name", ["check", "serve", "relay", "migrate"])
def test_a_faulty_settings_file_is_told_with_every_other_fault(command, tmp_path, name):
    (tmp_path / "settings.json").write_text("[]")
    files = {"APP_SETTINGS_FILE": "settings.json", "EVENT_TYPES_FILE": "absent"}
    for given in (files, {**files, "PORT": "x"}):
        done = command(name, **given)
        assert done.exit_code == 2
        faults = [line for line in done.stderr.splitlines() if ": " in line]
        assert all(one.startswith("configuration: ") for one in faults)
        assert all(f"configuration: {one}: " in done.stderr for one in given)
        assert "configuration: APP_SETTINGS_FILE: it has no JSON object" in done.stderr


async def test_check_tells_whether_confirmations_can_be_had(command):
    key = "signkey-test-00112233445566778899aabbccddeeff"
    async with FakeInngest(options=FakeOptions(signing_key=key)) as api:
        given = {"INNGEST_BASE_URL": api.url, "INNGEST_EVENT_KEY": "key", "INNGEST_DEV": "0"}
        good, bad, unasked = [
            await asyncio.to_thread(command, "check", **given, **more)
            for more in (
                {"INNGEST_SIGNING_KEY": key},
                {"INNGEST_SIGNING_KEY": "signkey-test-ff"},
                {"INNGEST_SIGNING_KEY": "signkey-test-ff", "OUTBOX_CONFIRM": "off"},
            )
        ]
    assert "confirmation: on (self-hosted Inngest); Inngest says which events it holds" in (
        good.stderr
    )
    assert good.exit_code == 0
    for done, mode, code in ((bad, "on (self-hosted Inngest)", 1), (unasked, "off (", 0)):
        assert f"confirmation: {mode}" in done.stderr
        assert "Inngest refuses INNGEST_SIGNING_KEY" in done.stderr
        assert done.exit_code == code


async def test_check_sends_what_delivery_sends(command, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    keys = {"INNGEST_EVENT_KEY": "first-key", "INNGEST_EVENT_KEY_FALLBACK": "second-key"}
    asked = []

    @web.middleware
    async def noting(request, handler):
        asked.append((request.headers["x-inngest-env"], await request.read()))
        return await handler(request)

    app = FakeInngest(options=FakeOptions(keys={"second-key"})).build_app()
    app.middlewares.append(noting)
    async with TestServer(app) as server:
        url = str(server.make_url("")).rstrip("/")
        given = {"INNGEST_BASE_URL": url, "INNGEST_DEV": "0", "INNGEST_ENV": "branch/a", **keys}
        done = await asyncio.to_thread(command, "check", **given)
    assert set(asked) == {("branch/a", b"[]")}
    assert f"inngest: {url} answers and takes the event key" in done.stderr
