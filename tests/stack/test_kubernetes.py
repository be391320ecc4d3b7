"""The manifests by the API's schema, and by what the service needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from inngest_outbox.config.settings import Settings
from tests.stack.compose_file import SERVE_SECONDS

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
# The oldest that still got mends when this was written, and the newest.
VERSIONS = ("1.35", "1.37")
MANIFESTS = ("sqlite", "postgresql")


def objects(manifest: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / f"{manifest}.yaml").read_text(encoding="utf-8")))


@pytest.fixture(params=MANIFESTS)
def workload(request: pytest.FixtureRequest) -> dict[str, Any]:
    return objects(request.param)[1]


def pod(workload: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = workload["spec"]["template"]["spec"]
    return found


def container(workload: dict[str, Any]) -> dict[str, Any]:
    [found] = pod(workload)["containers"]
    return dict(found)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", MANIFESTS)
def test_each_object_is_one_of_the_api(manifest: str, version: str) -> None:
    found = objects(manifest)
    for one in found:
        kubernetes_validate.validate(one, version, strict=True)
    assert [one["kind"] for one in found] == [
        "Service",
        "StatefulSet" if manifest == "sqlite" else "Deployment",
    ]


def test_a_field_that_the_api_does_not_know_is_found() -> None:
    broken = objects("sqlite")[1]
    pod(broken)["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


def test_a_pod_has_longer_to_end_than_the_service_needs(workload: dict[str, Any]) -> None:
    until_no_traffic = container(workload)["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed = until_no_traffic + SERVE_SECONDS + Settings.load({}).drain_seconds
    assert pod(workload)["terminationGracePeriodSeconds"] > needed


def test_the_service_finds_its_pods_and_the_probes_its_endpoints(workload: dict[str, Any]) -> None:
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert workload["spec"]["selector"]["matchLabels"] == labels
    for manifest in MANIFESTS:
        assert objects(manifest)[0]["spec"]["selector"] == labels
    one = container(workload)
    assert one["ports"] == [{"name": "http", "containerPort": 3000}]
    paths = {name: one[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert paths == {
        "startup": {"path": "/healthz", "port": "http"},
        "liveness": {"path": "/healthz", "port": "http"},
        "readiness": {"path": "/readyz", "port": "http"},
    }


def test_a_container_can_change_its_volumes_and_nothing_else(workload: dict[str, Any]) -> None:
    one, dockerfile = container(workload), (FOLDER.parents[1] / "Dockerfile").read_text("utf-8")
    assert one["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    user = pod(workload)["securityContext"]
    assert user["runAsNonRoot"] is True
    assert f"USER {user['runAsUser']}:{user['runAsGroup']}\n" in dockerfile
    for variable in one["env"]:
        assert variable["name"] in Settings.variables()


def test_sqlite_has_one_pod_with_the_outbox_on_its_claim() -> None:
    sqlite = objects("sqlite")[1]
    assert sqlite["spec"]["replicas"] == 1
    [claim] = sqlite["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    mounts = {one["name"]: one["mountPath"] for one in container(sqlite)["volumeMounts"]}
    assert mounts[claim["metadata"]["name"]] == "/var/lib/outbox"


def test_postgresql_has_several_pods_and_no_outbox_of_their_own() -> None:
    postgresql = objects("postgresql")[1]
    assert postgresql["spec"]["replicas"] > 1
    assert [one["mountPath"] for one in container(postgresql)["volumeMounts"]] == ["/tmp"]
