"""Manifests, held against Kubernetes' own schemas (of the package kubernetes-validate) and those of KServe's SDK."""

from __future__ import annotations

import copy
import dataclasses
import importlib.resources
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from referencing import Registry, Resource

from builder.errors import BadUsage, ReferenceNotPinned
from builder.reference import Reference
from builder.render import kserve, kubernetes, manifests, pod
from builder.render.model import LONGEST_NAME, Serving, label

KUBERNETES = ("1.30.0", "1.37.0")
"""The oldest that takes `preStop.sleep` without a feature gate, and the newest that the package knows."""
KSERVE = Path(__file__).parent / "data" / "kserve-0.21.0.json"
SERVING = Serving(
    name="vision",
    image=Reference.parse("registry.example.com/team/vision@sha256:" + "a" * 64),
    platform="linux/amd64",
    application="vision",
)
MUCH = dataclasses.replace(
    SERVING,
    namespace="production",
    replicas=3,
    gpus=2,
    cpu="1500m",
    memory="16Gi",
    shared_memory="512Mi",
    pull_secrets=("one", "two.example"),
    platform="linux/arm64",
    server_arguments=("--exit-timeout-secs", "90", "--allow-metrics=false"),
)


def check_kubernetes(documents: Any, version: str) -> None:
    for each in documents:
        kubernetes_validate.validate(each, version, strict=True)


def check_kserve(documents: Any) -> None:
    folder = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema" / "v1.37.0-local-strict"
    definitions = Resource.from_contents(json.loads((folder / "_definitions.json").read_text()))
    schema = json.loads(KSERVE.read_text())
    for each in documents:
        jsonschema.Draft202012Validator(schema, registry=definitions @ Registry()).validate(each)


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all keys below `tree`, those of maps that take any key left out."""
    free = ("labels", "annotations", "matchLabels", "nodeSelector", "selector", "requests", "limits")
    if isinstance(tree, dict):
        inner = [(key, value) for key, value in tree.items() if not (path and path[-1] in free)]
        return [
            *((*path, key) for key, _ in inner),
            *(place for key, value in inner for place in places(value, (*path, key))),
        ]
    if isinstance(tree, (list, tuple)):
        return [place for index, value in enumerate(tree) for place in places(value, (*path, index))]
    return []


def misspelt(tree: Any, path: tuple[Any, ...]) -> Any:
    """A copy in which the key at `path` has a letter too many."""
    changed = copy.deepcopy(tree)
    holder = changed
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1] + "s"] = holder.pop(path[-1])
    return changed


def whole(documents: Any) -> list[Any]:
    """As a cluster reads it."""
    return list(yaml.safe_load_all(manifests.text(documents, ())))


# Against the schemas


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("serving", [SERVING, MUCH], ids=["little", "much"])
def test_kubernetes_takes_what_is_rendered(serving: Serving, version: str) -> None:
    check_kubernetes(whole(kubernetes.documents(serving)), version)


@pytest.mark.parametrize("serving", [SERVING, MUCH], ids=["little", "much"])
def test_kserve_takes_what_is_rendered(serving: Serving) -> None:
    check_kserve(whole(kserve.documents(serving)))


@pytest.mark.parametrize("index", [0, 1, 2])
def test_no_field_of_kubernetes_can_be_misspelt(index: int) -> None:
    document = whole(kubernetes.documents(MUCH))[index]
    found = places(document)
    assert ("spec",) in found
    for path in found:
        if path in (("apiVersion",), ("kind",)):
            continue  # by which the schema is found
        with pytest.raises(kubernetes_validate.ValidationError):
            check_kubernetes([misspelt(document, path)], KUBERNETES[-1])


def test_no_field_of_kserve_can_be_misspelt() -> None:
    (document,) = whole(kserve.documents(MUCH))
    found = places(document)
    assert len(found) > 60
    for path in found:
        with pytest.raises(jsonschema.ValidationError):
            check_kserve([misspelt(document, path)])


def test_a_value_of_a_wrong_type_is_refused() -> None:
    documents = whole(kubernetes.documents(SERVING))
    documents[0]["spec"]["replicas"] = "1"
    with pytest.raises(kubernetes_validate.ValidationError):
        check_kubernetes(documents, KUBERNETES[-1])
    (document,) = whole(kserve.documents(SERVING))
    document["spec"]["predictor"]["minReplicas"] = "1"
    with pytest.raises(jsonschema.ValidationError):
        check_kserve([document])


# What no schema sees


@pytest.mark.parametrize("serving", [SERVING, MUCH], ids=["little", "much"])
def test_what_refers_to_something_finds_it(serving: Serving) -> None:
    deployment, service, *budget = kubernetes.documents(serving)
    template = deployment["spec"]["template"]
    (container,) = template["spec"]["containers"]
    ports = {each["name"] for each in container["ports"]}
    for selector in (deployment["spec"]["selector"]["matchLabels"], service["spec"]["selector"]):
        assert selector.items() <= template["metadata"]["labels"].items()
    assert {each["targetPort"] for each in service["spec"]["ports"]} == ports
    assert {container[probe]["httpGet"]["port"] for probe in PROBES} <= ports
    volumes = {each["name"] for each in template["spec"]["volumes"]}
    assert {each["name"] for each in container["volumeMounts"]} == volumes
    assert [each["spec"]["selector"]["matchLabels"] for each in budget] == [serving.selector] * len(budget)


PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


@pytest.mark.parametrize("documents", [kubernetes.documents, kserve.documents])
def test_the_pod_has_no_more_rights_than_compose_gives(documents: Any) -> None:
    spec = _pod(documents(SERVING)[0])
    (container,) = spec["containers"]
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "runAsGroup": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert {each["name"]: each["emptyDir"] for each in spec["volumes"]}["shm"]["medium"] == "Memory"


@pytest.mark.parametrize("documents", [kubernetes.documents, kserve.documents])
def test_the_image_runs_its_own_command_by_its_digest(documents: Any) -> None:
    (container,) = _pod(documents(SERVING)[0])["containers"]
    assert container["image"] == str(SERVING.image)
    assert not {"command", "args"} & set(container)


def test_the_image_of_the_dockerfile_listens_where_the_manifests_say() -> None:
    text = (Path(__file__).resolve().parents[2] / "Dockerfile").read_text()
    assert f"EXPOSE {pod.HTTP} {pod.GRPC} {pod.METRICS}\n" in text
    assert f"USER {pod.USER}:{pod.USER}\n" in text


def test_requests_are_the_limits_and_gpus_come_on_top() -> None:
    (container,) = _pod(kubernetes.documents(MUCH)[0])["containers"]
    assert container["resources"] == {
        "requests": {"cpu": "1500m", "memory": "16Gi"},
        "limits": {"cpu": "1500m", "memory": "16Gi", "nvidia.com/gpu": "2"},
    }
    spec = _pod(kubernetes.documents(SERVING)[0])
    assert "nvidia.com/gpu" not in json.dumps(spec)


def test_a_pod_goes_to_nodes_of_the_image_s_machine() -> None:
    assert _pod(kubernetes.documents(MUCH)[0])["nodeSelector"] == {"kubernetes.io/arch": "arm64"}


def test_a_pod_is_given_the_time_that_its_server_takes_to_stop() -> None:
    assert _pod(kubernetes.documents(SERVING)[0])["terminationGracePeriodSeconds"] == 40
    assert _pod(kubernetes.documents(MUCH)[0])["terminationGracePeriodSeconds"] == 100


def test_a_server_without_metrics_has_no_port_for_them() -> None:
    for documents, expected in ((SERVING, ["http", "grpc", "metrics"]), (MUCH, ["http", "grpc"])):
        (container,) = _pod(kserve.documents(documents)[0])["containers"]
        assert [each["name"] for each in container["ports"]] == expected


def test_a_budget_keeps_drains_from_taking_all_replicas_and_never_blocks_them() -> None:
    assert [each["kind"] for each in kubernetes.documents(SERVING)] == ["Deployment", "Service"]
    assert [each["kind"] for each in kubernetes.documents(MUCH)] == ["Deployment", "Service", "PodDisruptionBudget"]


def test_kserve_knows_the_container_and_its_protocol() -> None:
    (document,) = kserve.documents(MUCH)
    predictor = document["spec"]["predictor"]
    (container,) = predictor["containers"]
    assert container["name"] == "kserve-container"
    assert container["env"] == [{"name": "PROTOCOL", "value": "v2"}]
    assert container["ports"][0]["containerPort"] == 8000  # which KServe puts behind port 80
    assert (predictor["minReplicas"], predictor["maxReplicas"]) == (3, 3)
    assert document["metadata"]["annotations"] == {"serving.kserve.io/deploymentMode": "Standard"}
    assert "storageUri" not in json.dumps(document)


def _pod(document: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = document["spec"]
    return spec["predictor"] if "predictor" in spec else spec["template"]["spec"]


# The text


def test_the_same_objects_are_the_same_bytes_and_nothing_is_an_alias() -> None:
    texts = {manifests.text(kubernetes.documents(copy.deepcopy(MUCH)), ("Made by: x",)) for _ in range(2)}
    (text,) = texts
    assert text.startswith("# Made by: x\n---\n")
    assert not re.search(r"[&*]id\d", text)
    assert list(yaml.safe_load_all(text)) == list(kubernetes.documents(MUCH))


def test_the_selector_stays_when_the_image_changes() -> None:
    other = dataclasses.replace(SERVING, image=Reference.parse("x.example/y@sha256:" + "b" * 64))
    before, after = (kubernetes.documents(each)[0]["spec"] for each in (SERVING, other))
    assert before["selector"] == after["selector"]
    assert before["template"]["metadata"]["labels"] != after["template"]["metadata"]["labels"]


# What is refused


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"name": "Vision"}, "--name"),
        ({"name": "2d"}, "--name"),
        ({"name": "x" * (LONGEST_NAME + 1)}, "--name"),
        ({"namespace": "a.b"}, "--namespace"),
        ({"namespace": "x" * 64}, "--namespace"),
        ({"pull_secrets": ("user:password",)}, "--pull-secret"),
        ({"cpu": "two"}, "--cpu"),
        ({"cpu": "0"}, "--cpu"),
        ({"cpu": "0.0"}, "--cpu"),
        ({"memory": "4G"}, "--memory"),
        ({"memory": "1Gi"}, "--memory"),
        ({"shared_memory": "x"}, "--shared-memory"),
        ({"memory": "1024Mi"}, "--memory"),
    ],
)
def test_what_a_cluster_would_refuse_is_refused_here(change: dict[str, Any], where: str) -> None:
    with pytest.raises(BadUsage) as refused:
        dataclasses.replace(SERVING, **change)
    assert refused.value.where == where
    assert refused.value.remedy


@pytest.mark.parametrize("image", ["registry.example.com/team/vision:1.0", "registry.example.com/team/vision"])
def test_a_tag_is_refused(image: str) -> None:
    with pytest.raises(ReferenceNotPinned):
        dataclasses.replace(SERVING, image=Reference.parse(image))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mydali", "mydali"),
        ("my_blur.v2", "my-blur-v2"),
        ("2d-resize", "triton-2d-resize"),
        ("a" * 52 + "-b", "a" * 52),
    ],
)
def test_a_label_is_made_of_any_repository_s_name(text: str, expected: str) -> None:
    assert label(text) == expected
    assert dataclasses.replace(SERVING, name=label(text)).name == expected
