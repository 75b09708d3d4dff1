"""The manifests of `deploy/kubernetes` agree with the flags of a worker and with each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner

from outbox import work
from outbox.settings import WorkerOptions

KUBERNETES = Path(__file__).parents[2] / "deploy" / "kubernetes"


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((KUBERNETES / name).read_text()))


def worker() -> dict[str, Any]:
    [deployment] = documents("worker.yaml")
    return deployment


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = worker()["spec"]["template"]["spec"]
    return spec


def flags() -> dict[str, str]:
    [container] = pod()["containers"]
    return {name: value for name, _, value in (flag.partition("=") for flag in container["args"])}


def published() -> list[tuple[str, dict[str, Any]]]:
    """The manifests whose schemas Kubernetes publishes, each with its file: those of KEDA are not its own."""
    return [
        (path.name, document)
        for path in sorted(KUBERNETES.glob("*.yaml"))
        for document in documents(path.name)
        if not document["apiVersion"].startswith("keda.sh/")
    ]


@pytest.mark.parametrize("version", ["1.29", kubernetes_validate.latest_version()])
def test_the_published_schemas_take_the_manifests(version: str) -> None:
    assert {name for name, _ in published()} == {"migrate.yaml", "worker.yaml"}
    for name, document in published():
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            pytest.fail(f"{name}: {'.'.join(map(str, error.path))}: {error.message}")


def test_the_flags_are_those_of_a_worker() -> None:
    known = CliRunner().invoke(work.cli, ["--help"]).output
    assert all(f"{flag} " in known for flag in flags())
    [container] = pod()["containers"]
    assert container["command"] == ["python", "-m", "outbox.work"], "no shell keeps TERM from it"
    options = {name[2:].replace("-", "_"): value for name, value in flags().items() if value}
    assert WorkerOptions(**options).grace == 30


def test_a_worker_gets_more_time_to_stop_than_its_grace() -> None:
    assert pod()["terminationGracePeriodSeconds"] > float(flags()["--grace"]) + 10


def test_probes_and_prometheus_ask_the_health_port() -> None:
    [container] = pod()["containers"]
    assert flags()["--health-host"] == "0.0.0.0", "probes come from outside of the container"
    [port] = container["ports"]
    annotations = worker()["spec"]["template"]["metadata"]["annotations"]
    assert port["containerPort"] == int(flags()["--health-port"]) == int(annotations["prometheus.io/port"])
    probes = {name: container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {probe["port"] for probe in probes.values()} == {port["name"]}
    assert [probe["path"] for probe in probes.values()] == ["/live", "/live", "/ready"]
    assert container["livenessProbe"]["timeoutSeconds"] > 5, "a supervisor waits for its processes"


def test_labels_select_what_they_should() -> None:
    deployment, [scaled, authentication] = worker(), documents("worker-scaler.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert scaled["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    [trigger] = scaled["spec"]["triggers"]
    assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]
    queue = flags()["--queue"]
    assert trigger["metadata"]["query"].count(f"queue = '{queue}'") == 3
    assert int(trigger["metadata"]["queryValue"]) == 60 * int(flags()["--concurrency"])


def scaled() -> dict[str, Any]:
    spec: dict[str, Any] = documents("worker-scaler.yaml")[0]["spec"]
    return spec


def test_the_scaled_object_has_fields_that_keda_documents() -> None:
    """KEDA's webhook refuses other numbers of replicas, and its API server drops a field that it does not know."""
    [document, _] = documents("worker-scaler.yaml")
    assert (document["apiVersion"], document["kind"]) == ("keda.sh/v1alpha1", "ScaledObject")
    spec = scaled()
    seconds = {"pollingInterval", "cooldownPeriod", "initialCooldownPeriod"}
    replicas = {"idleReplicaCount", "minReplicaCount", "maxReplicaCount"}
    assert spec.keys() <= {"scaleTargetRef", "advanced", "fallback", "triggers", *seconds, *replicas}
    assert spec["scaleTargetRef"].keys() <= {"name", "apiVersion", "kind", "envSourceContainerName"}
    assert all(type(spec[name]) is int and spec[name] >= 0 for name in (seconds | replicas) & spec.keys())
    assert spec["minReplicaCount"] <= spec["maxReplicaCount"]
    assert spec.get("idleReplicaCount", -1) < spec["minReplicaCount"]


def test_the_behaviour_of_the_scaler_is_one_of_kubernetes() -> None:
    """KEDA hands it to a HorizontalPodAutoscaler, whose schema is published."""
    spec = scaled()
    known = {"horizontalPodAutoscalerConfig", "restoreToOriginalReplicaCount", "scalingModifiers"}
    assert spec["advanced"].keys() <= known
    config = spec["advanced"]["horizontalPodAutoscalerConfig"]
    assert config.keys() <= {"name", "behavior"}
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": spec["scaleTargetRef"]["name"]}
    autoscaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "keda"},
        "spec": {
            "scaleTargetRef": target,
            "minReplicas": spec["minReplicaCount"],
            "maxReplicas": spec["maxReplicaCount"],
            "behavior": config["behavior"],
        },
    }
    kubernetes_validate.validate(autoscaler, kubernetes_validate.latest_version(), strict=True)


def test_the_trigger_is_one_of_mysql() -> None:
    [trigger] = scaled()["triggers"]
    assert trigger.keys() <= {"type", "name", "metadata", "authenticationRef", "metricType", "useCachedMetrics"}
    assert trigger["type"] == "mysql"
    assert trigger["metricType"] in {"AverageValue", "Value"}, "Utilization is for cpu and memory"
    assert trigger["authenticationRef"].keys() <= {"name", "kind"}
    metadata = trigger["metadata"]
    assert all(type(value) is str for value in metadata.values()), "the API server takes no number here"
    assert {"query", "queryValue"} <= metadata.keys() <= {"query", "queryValue", "activationQueryValue"}
    assert int(metadata["queryValue"]) > 0


def test_the_scaler_gets_its_connection_from_a_secret() -> None:
    [_, authentication] = documents("worker-scaler.yaml")
    assert (authentication["apiVersion"], authentication["kind"]) == ("keda.sh/v1alpha1", "TriggerAuthentication")
    assert authentication["spec"].keys() == {"secretTargetRef"}
    [reference] = authentication["spec"]["secretTargetRef"]
    assert reference.keys() == {"parameter", "name", "key"}
    assert reference["parameter"] == "connectionString", "as the scaler calls it"


def test_the_migration_runs_once_with_the_same_settings() -> None:
    [job] = documents("migrate.yaml")
    spec = job["spec"]["template"]["spec"]
    assert spec["restartPolicy"] == "Never"
    [migrate], [container] = spec["containers"], pod()["containers"]
    assert migrate["command"] == ["alembic", "upgrade", "head"]
    assert (migrate["image"], migrate["envFrom"]) == (container["image"], container["envFrom"])
