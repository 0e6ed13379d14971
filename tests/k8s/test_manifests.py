"""The cluster's manifests: they render, every object is valid, the pods are locked down, and the objects find each other."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sysconfig
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from serve.drain import LAST_WORK_SECONDS
from serve.metrics.declared import SupervisorMetric
from serve.settings import Settings, load_settings
from tests.conftest import ROOT

Manifest = dict[str, Any]

TARGETS = ("base", "overlays/cpu", "overlays/gpu")
OVERLAYS = TARGETS[1:]
KUBERNETES = ("1.30", "1.37")  # the oldest version the manifests are meant for, and the newest whose schema is at hand
CORE_KINDS = ["Deployment", "HorizontalPodAutoscaler", "NetworkPolicy", "PodDisruptionBudget", "Service", "ServiceMonitor"]
SERVING, MONITORING, LOOPBACK = {8080, 7070}, {8090}, {8081, 8082, 7071}

# The fields of monitoring.coreos.com/v1 that a plain scrape may use, as the operator's API reference documents them.
LABEL_SELECTOR = {
    "type": "object",
    "properties": {"matchLabels": {"type": "object", "additionalProperties": {"type": "string"}}},
    "required": ["matchLabels"],
    "additionalProperties": False,
}
DURATION = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$"}
SERVICE_MONITOR = {
    "type": "object",
    "properties": {
        "apiVersion": {"const": "monitoring.coreos.com/v1"},
        "kind": {"const": "ServiceMonitor"},
        "metadata": {"type": "object", "required": ["name", "labels"]},
        "spec": {
            "type": "object",
            "properties": {
                "jobLabel": {"type": "string"},
                "selector": LABEL_SELECTOR,
                "endpoints": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "properties": {
                            "port": {"type": "string"},
                            "path": {"type": "string", "pattern": "^/"},
                            "scheme": {"enum": ["http", "https"]},
                            "interval": DURATION,
                            "scrapeTimeout": DURATION,
                            "honorLabels": {"type": "boolean"},
                        },
                        "required": ["port", "path"],
                        "additionalProperties": False,
                    },
                },
            },
            "required": ["selector", "endpoints"],
            "additionalProperties": False,
        },
    },
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
}


def kustomize_command() -> list[str] | None:
    """The command that renders a kustomization here, or None: kustomize, or kubectl which carries it."""
    scripts = sysconfig.get_path("scripts")
    for name, arguments in (("kustomize", ["build"]), ("kubectl", ["kustomize"])):
        if found := shutil.which(name) or shutil.which(name, path=scripts):
            return [found, *arguments]
    return None


@pytest.fixture(scope="session")
def rendered() -> dict[str, list[Manifest]]:
    """Every target's objects, as kustomize renders them."""
    command = kustomize_command()
    if command is None:
        pytest.skip("neither kustomize nor kubectl is installed, so the manifests cannot be rendered")
    objects = {}
    for target in TARGETS:
        done = subprocess.run([*command, str(ROOT / "k8s" / target)], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert "deprecated" not in done.stderr.lower(), done.stderr
        objects[target] = list(yaml.safe_load_all(done.stdout))
    return objects


@pytest.fixture(params=TARGETS)
def manifests(request: pytest.FixtureRequest, rendered: dict[str, list[Manifest]]) -> list[Manifest]:
    """The objects of the base and of each overlay in turn."""
    return rendered[request.param]


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest, rendered: dict[str, list[Manifest]]) -> list[Manifest]:
    """The objects of each overlay in turn: what a cluster is really given."""
    return rendered[request.param]


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [m for m in manifests if m["kind"] == kind]


def only(manifests: list[Manifest], kind: str) -> Manifest:
    (manifest,) = of_kind(manifests, kind)
    return manifest


def pod(manifests: list[Manifest]) -> Manifest:
    return only(manifests, "Deployment")["spec"]["template"]


def containers(manifests: list[Manifest]) -> list[Manifest]:
    spec = pod(manifests)["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def matches(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return bool(selector) and selector.items() <= labels.items()


def container_ports(manifests: list[Manifest]) -> dict[str, int]:
    return {p["name"]: p["containerPort"] for c in containers(manifests) for p in c["ports"]}


def server_settings(container: Manifest) -> Settings:
    """The server's settings as the container's environment makes them, each variable being one that the server knows."""
    given = {e["name"][7:].lower(): e["value"] for e in container["env"] if e["name"].startswith("UNMASK_")}
    assert set(given) <= set(Settings.model_fields)
    return load_settings(given)


def restricted_violations(template: Manifest) -> list[str]:
    """What the Pod Security Standard "restricted" would refuse in a pod template, and what a read-only root adds to it."""
    spec = template["spec"]
    found = [f"{key} is shared with the node" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    found += [f"volume {v['name']} is not an emptyDir" for v in spec.get("volumes", []) if "emptyDir" not in v]
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        mine = container.get("securityContext", {})
        security = {**spec.get("securityContext", {}), **mine}
        if not security.get("runAsNonRoot") or security.get("runAsUser", 0) == 0 or security.get("runAsGroup", 0) == 0:
            found.append(f"{container['name']} may run as root")
        if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            found.append(f"{container['name']} has no seccomp profile")
        if mine.get("privileged") or mine.get("allowPrivilegeEscalation") is not False:
            found.append(f"{container['name']} may gain privileges")
        if mine.get("capabilities") != {"drop": ["ALL"]}:
            found.append(f"{container['name']} keeps capabilities")
        if not mine.get("readOnlyRootFilesystem"):
            found.append(f"{container['name']} may write to its image")
        if any("hostPort" in p for p in container.get("ports", [])):
            found.append(f"{container['name']} takes a port of the node")
    return found


def test_base_and_overlays_hold_every_object(manifests: list[Manifest]) -> None:
    assert sorted({m["kind"] for m in manifests}) == CORE_KINDS


@pytest.mark.parametrize("version", KUBERNETES)
def test_every_object_is_valid_kubernetes_with_no_unknown_field(manifests: list[Manifest], version: str) -> None:
    for manifest in manifests:
        if manifest["kind"] != "ServiceMonitor":
            assert kubernetes_validate.validate(manifest, version, strict=True) == version


def test_a_misspelt_field_is_caught(overlay: list[Manifest]) -> None:
    broken = copy.deepcopy(only(overlay, "Deployment"))
    broken["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate(broken, KUBERNETES[-1], strict=True)


def test_the_service_monitor_scrapes_a_port_that_a_service_has(manifests: list[Manifest]) -> None:
    monitor = only(manifests, "ServiceMonitor")
    jsonschema.validate(monitor, SERVICE_MONITOR)
    wanted = monitor["spec"]["selector"]["matchLabels"]
    (service,) = [s for s in of_kind(manifests, "Service") if matches(wanted, s["metadata"]["labels"])]
    ports = {p["name"]: p["port"] for p in service["spec"]["ports"]}
    assert [ports[e["port"]] for e in monitor["spec"]["endpoints"]] == [8090]
    assert monitor["spec"]["endpoints"][0]["path"] == "/metrics"


def test_pods_satisfy_the_restricted_security_standard(manifests: list[Manifest]) -> None:
    assert restricted_violations(pod(manifests)) == []
    assert pod(manifests)["spec"]["automountServiceAccountToken"] is False


@pytest.mark.parametrize(
    ("where", "key", "value"),
    [
        ("container", "runAsUser", 0),
        ("container", "readOnlyRootFilesystem", False),
        ("container", "capabilities", {"drop": ["ALL"], "add": ["NET_ADMIN"]}),
        ("container", "allowPrivilegeEscalation", None),
        ("pod", "seccompProfile", {"type": "Unconfined"}),
        ("pod", "runAsNonRoot", False),
    ],
)
def test_a_loosened_pod_would_be_noticed(overlay: list[Manifest], where: str, key: str, value: object) -> None:
    template = copy.deepcopy(pod(overlay))
    spec = template["spec"]
    (spec["containers"][0] if where == "container" else spec)["securityContext"][key] = value
    assert len(restricted_violations(template)) == 1


def test_what_the_container_writes_to_is_a_bounded_volume(manifests: list[Manifest]) -> None:
    volumes = {v["name"]: v["emptyDir"] for v in pod(manifests)["spec"]["volumes"]}
    (container,) = containers(manifests)
    mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
    assert set(mounts) == {"/var/lib/unmask", "/tmp"}
    assert all("sizeLimit" in volumes[name] for name in mounts.values())


def test_every_selector_finds_the_pods(manifests: list[Manifest]) -> None:
    labels = pod(manifests)["metadata"]["labels"]
    spec = pod(manifests)["spec"]
    selectors = [
        only(manifests, "Deployment")["spec"]["selector"]["matchLabels"],
        only(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        only(manifests, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(s["spec"]["selector"] for s in of_kind(manifests, "Service")),
        *(c["labelSelector"]["matchLabels"] for c in spec["topologySpreadConstraints"]),
    ]
    assert [s for s in selectors if not matches(s, labels)] == []


def test_every_service_port_leads_to_a_port_of_the_container(manifests: list[Manifest]) -> None:
    ports = container_ports(manifests)
    for service in of_kind(manifests, "Service"):
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]


def test_management_is_exposed_nowhere(manifests: list[Manifest]) -> None:
    assert set(container_ports(manifests).values()) == SERVING | MONITORING
    for service in of_kind(manifests, "Service"):
        assert service["spec"]["type"] == "ClusterIP"
        assert not {p["port"] for p in service["spec"]["ports"]} & LOOPBACK
    policy = only(manifests, "NetworkPolicy")["spec"]
    assert not {p["port"] for rule in policy["ingress"] for p in rule["ports"]} & LOOPBACK


def test_only_labelled_clients_score_and_only_monitoring_scrapes(manifests: list[Manifest]) -> None:
    policy = only(manifests, "NetworkPolicy")["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert policy["egress"] == []
    by_port = {frozenset(p["port"] for p in rule["ports"]): rule["from"] for rule in policy["ingress"]}
    assert set(by_port) == {frozenset(SERVING), frozenset(MONITORING)}
    # The clients are other people's pods: their own labels may say anything but must not have to say they are the detector.
    assert [peer["podSelector"] for peer in by_port[frozenset(SERVING)]] == [{"matchLabels": {"unmask/client": "true"}}] * 2
    monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    assert by_port[frozenset(MONITORING)] == [monitoring]


def test_probes_ask_the_supervisor(manifests: list[Manifest]) -> None:
    ports = container_ports(manifests)
    (container,) = containers(manifests)
    asked = {
        probe: (ports[container[probe]["httpGet"]["port"]], container[probe]["httpGet"]["path"])
        for probe in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    # Liveness must not ask for readiness: a pod that drains or reloads is unready, and killing it would cut its answers.
    assert asked == {"startupProbe": (8090, "/readyz"), "readinessProbe": (8090, "/readyz"), "livenessProbe": (8090, "/livez")}


def test_the_grace_period_outlasts_the_drain(manifests: list[Manifest]) -> None:
    (container,) = containers(manifests)
    settings = server_settings(container)
    assert settings.drain_grace >= 3, "kube-proxy on every node needs a moment to hear that the pod is going"
    period = pod(manifests)["spec"]["terminationGracePeriodSeconds"]
    assert period > settings.drain_grace + settings.drain_limit + LAST_WORK_SECONDS


def test_the_server_gives_up_on_a_start_before_the_kubelet_does(manifests: list[Manifest]) -> None:
    (container,) = containers(manifests)
    startup = container["startupProbe"]
    # So that the log says why, and not only that a probe failed.
    assert startup["periodSeconds"] * startup["failureThreshold"] > server_settings(container).startup_timeout + 10


def test_a_rollout_never_has_fewer_pods_than_before(manifests: list[Manifest]) -> None:
    strategy = only(manifests, "Deployment")["spec"]["strategy"]
    assert (strategy["type"], strategy["rollingUpdate"]["maxUnavailable"]) == ("RollingUpdate", 0)


def test_the_autoscaler_owns_the_number_of_pods(manifests: list[Manifest]) -> None:
    deployment, hpa = only(manifests, "Deployment"), only(manifests, "HorizontalPodAutoscaler")["spec"]
    target = hpa["scaleTargetRef"]
    assert (target["apiVersion"], target["kind"], target["name"]) == ("apps/v1", "Deployment", deployment["metadata"]["name"])
    assert "replicas" not in deployment["spec"]
    assert 2 <= hpa["minReplicas"] < hpa["maxReplicas"]


def test_the_autoscaler_asks_for_a_gauge_that_the_supervisor_exports(manifests: list[Manifest]) -> None:
    exported = {metric.value.name: metric.value.kind for metric in SupervisorMetric}
    metrics = only(manifests, "HorizontalPodAutoscaler")["spec"]["metrics"]
    names = [m["pods"]["metric"]["name"] for m in metrics if m["type"] == "Pods"]
    # A counter only ever grows, and the number of pods with it.
    assert [exported[name] for name in names] == ["Gauge"]


def test_the_disruption_budget_lets_a_drain_go_on(manifests: list[Manifest]) -> None:
    budget, hpa = only(manifests, "PodDisruptionBudget")["spec"], only(manifests, "HorizontalPodAutoscaler")["spec"]
    assert 1 <= budget["maxUnavailable"] < hpa["minReplicas"]


def test_images_are_pinned(overlay: list[Manifest]) -> None:
    for container in containers(overlay):
        name, _, tag = container["image"].partition(":")
        assert name == "unmask"
        assert tag not in ("", "latest")


def test_overlays_live_in_their_own_namespace_and_bound_their_pods(overlay: list[Manifest]) -> None:
    assert {m["metadata"]["namespace"] for m in overlay} == {"unmask"}
    for container in containers(overlay):
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert {"cpu", "memory"} <= set(container["resources"]["limits"])


def test_the_cpu_overlay_scales_on_cpu_too(rendered: dict[str, list[Manifest]]) -> None:
    metrics = only(rendered["overlays/cpu"], "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert {m["type"] for m in metrics} == {"Pods", "Resource"}
    (container,) = containers(rendered["overlays/cpu"])
    assert server_settings(container).device == "cpu"
    assert not any("gpu" in key for key in container["resources"]["limits"])


def test_the_gpu_overlay_asks_for_one_gpu_and_uses_it(rendered: dict[str, list[Manifest]]) -> None:
    (container,) = containers(rendered["overlays/gpu"])
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["resources"]["requests"]["nvidia.com/gpu"] == "1"
    assert server_settings(container).device == "cuda"
    tolerations = pod(rendered["overlays/gpu"])["spec"]["tolerations"]
    assert [t for t in tolerations if t["key"] == "nvidia.com/gpu" and t["effect"] == "NoSchedule"]
