"""The local stack, as far as it can be checked without a container engine."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from inngest_outbox.config.settings import Settings
from inngest_outbox.config.values import parse_duration
from inngest_outbox.console.operations.sampler import DELIVERY_STATES
from inngest_outbox.observe.metrics import VOCABULARY, PrometheusRecorder
from inngest_outbox.processes import main as commands
from inngest_outbox.web.events.followed_event import FollowPolicy
from inngest_outbox.web.intake.event_batch import MAX_BATCH_BYTES
from tests.stack.compose_file import SERVE_SECONDS, compose_services

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
# Read by boto, by Docker's other images, or by Python; the rest must be ours.
KNOWN = re.compile(r"AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY|ENDPOINT_URL_S3)|PYTHON\w+|PATH")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """Those of every profile."""
    return compose_services("*")


def ours(services: dict[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in services.items() if "build" in one}


def seconds(text: str) -> float:
    """Compose writes 1m30s."""
    parts = re.findall(r"[\d.]+(?:ms|[smh])", text)
    return sum(map(parse_duration, parts))


@pytest.mark.parametrize("profile", ["", "metrics", "postgres"])
def test_each_profile_has_its_services(profile: str) -> None:
    services = compose_services(profile)
    assert {"service", "worker", "inngest", "s3"} <= set(services)
    for name, one in services.items():
        if name not in ours(services):
            assert re.search(r":v?\d+\.\d+", one["image"]), f"{name} is not pinned"
        for port in one.get("ports", []):
            assert port["host_ip"] == "127.0.0.1"
        for neighbour, wanted in one.get("depends_on", {}).items():
            healthy = wanted["condition"] == "service_healthy"
            assert not healthy or "healthcheck" in services[neighbour], f"{neighbour} for {name}"


def test_each_variable_means_something_and_the_configuration_is_whole(
    services: dict[str, Any],
) -> None:
    for name, one in ours(services).items():
        given = one["environment"]
        unknown = {key for key in given if key not in Settings.variables()}
        assert all(KNOWN.fullmatch(key) for key in unknown), f"{name}: {unknown}"
        settings = Settings.load({key: str(value) for key, value in given.items()})
        assert settings.missing_storage == []
        assert one["stop_grace_period"]
        assert seconds(one["stop_grace_period"]) > settings.drain_seconds + SERVE_SECONDS


def test_each_command_exists(services: dict[str, Any]) -> None:
    known = set(get_command(commands.app).commands)  # type: ignore[attr-defined]
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    default = json.loads(dockerfile.split("\nCMD ")[1])
    for one in ours(services).values():
        command = one.get("command") or default
        assert command[0] == "inngest-outbox"
        assert command[1] in known
        assert CliRunner().invoke(commands.app, [*command[1:], "--help"]).exit_code == 0


def test_only_the_outbox_of_one_process_lies_on_the_volume(services: dict[str, Any]) -> None:
    mounted = [
        name
        for name, one in ours(services).items()
        if any(volume["source"] == "outbox" for volume in one.get("volumes", []))
    ]
    assert mounted == ["service"]
    for name, one in ours(services).items():
        replicas = one.get("deploy", {}).get("replicas", 1)
        assert replicas == 1 or one["environment"]["OUTBOX_URL"].startswith("postgresql://"), name


def test_each_container_of_ours_is_kept_from_changing_itself(services: dict[str, Any]) -> None:
    for one in ours(services).values():
        assert one["read_only"] is True
        assert one["cap_drop"] == ["ALL"]
        assert one["security_opt"] == ["no-new-privileges:true"]


def test_each_part_has_a_health_check(services: dict[str, Any]) -> None:
    for name, one in services.items():
        assert one.get("healthcheck", {}).get("test"), name


def test_ports_and_secrets_can_be_set() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    published = re.findall(r'ports: \["127\.0\.0\.1:(.+?)"\]', text)
    assert len(published) == 6
    assert all(re.fullmatch(r"\$\{[A-Z0-9_]+_PORT:-\d+\}:\d+", port) for port in published)
    for secret in re.findall(
        r"^ +(\w*(?:SECRET|TOKEN|PASSWORD|ACCESS_KEY)\w*): (.+)$", text, re.MULTILINE
    ):
        assert secret[1].startswith("${"), secret[0]


def test_the_image_runs_as_a_fixed_user_and_holds_no_build_tools() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    final = text.split("\nFROM ")[-1]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert re.search(r"^USER \d+:\d+$", final, re.MULTILINE)
    assert re.search(rf"^ARG VERSION={re.escape(project['version'])}$", final, re.MULTILINE)
    assert "HEALTHCHECK" in final
    assert "APP_ENV=production" in final
    assert "apt-get" not in text
    assert "# syntax" not in text
    assert text.count("--require-hashes") == 2
    copied = re.findall(r"^COPY (?:--from=\S+ )?(.+) \S+$", text, re.MULTILINE)
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    for source in " ".join(copied).split():
        assert source.startswith("/") or f"!{source.removeprefix('./')}" in ignored


def test_alerts_and_dashboard_name_only_metrics_that_are_exposed() -> None:
    recorder = PrometheusRecorder()
    exposed = set(re.findall(r"^# HELP (\S+)", recorder.render()[0].decode(), re.MULTILINE))
    for name in VOCABULARY:
        if f"outbox_{name}" in exposed and VOCABULARY[name].buckets:
            exposed |= {f"outbox_{name}_{end}" for end in ("bucket", "sum", "count")}
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))
    dashboard = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))
    expressions = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    expressions += [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]]
    for expression in expressions:
        named = re.findall(r"\b(?:outbox|process)_[a-z0-9_]+", re.sub('"[^"]*"', "", expression))
        assert set(named) <= exposed, expression
        breakers = re.findall(r'outbox_delivery_state\{state="(\w+)"', expression)
        assert set(breakers) <= set(DELIVERY_STATES)


def test_the_balancer_lets_large_posts_and_long_polls_pass_and_logs_no_event_key() -> None:
    told = (ROOT / "deploy" / "balancer" / "nginx.conf").read_text(encoding="utf-8")
    [mebibytes] = re.findall(r"client_max_body_size (\d+)m;", told)
    assert int(mebibytes) * 2**20 > MAX_BATCH_BYTES
    [patience] = re.findall(r"proxy_read_timeout (\d+)s;", told)
    assert int(patience) > FollowPolicy().max_wait_seconds
    of_keys = told.split("location /e/ {")[1].split("}")[0]
    assert "access_log off;" in of_keys
    assert "error_log /dev/null;" in of_keys
