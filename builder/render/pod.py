"""The pod that serves an image: what docker-compose.yml says of a container, in Kubernetes' words."""

from __future__ import annotations

from typing import Any

from builder.render.model import Serving

HTTP, GRPC, METRICS = 8000, 8001, 8002
"""Triton's own; the image has no others."""
USER = 1000
"""The image's. By number here too, so that no node has to look it up."""
DRAIN = 5
"""Seconds between a pod's end being decided and its server being told: until then proxies still send requests to it."""
_MARGIN = 5
"""Seconds for the processes of models to end after the server's own timeout."""
_TMP = "1Gi"
_STARTUP = (5, 60)
"""Seconds between probes, and how many may fail: 5 minutes to load the models."""


def ports(serving: Serving) -> dict[str, int]:
    """What the server listens on. HTTP is the first, which KServe takes for the service's own port."""
    return {"http": HTTP, "grpc": GRPC, **({"metrics": METRICS} if serving.has_metrics else {})}


def spec(serving: Serving, container: str) -> dict[str, Any]:
    """A PodSpec with one container of the name `container`, which runs the image's own command."""
    secrets = [{"name": each} for each in serving.pull_secrets]
    # Clusters often keep other pods off GPU nodes with this taint; where no node has it, this means nothing.
    tolerations = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}] if serving.gpus else []
    return {
        **({"imagePullSecrets": secrets} if secrets else {}),
        # The server asks nothing of the cluster.
        "automountServiceAccountToken": False,
        "nodeSelector": {"kubernetes.io/arch": serving.architecture},
        **({"tolerations": tolerations} if tolerations else {}),
        "terminationGracePeriodSeconds": DRAIN + serving.exit_seconds + _MARGIN,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(serving, container)],
        "volumes": [
            {"name": "tmp", "emptyDir": {"sizeLimit": _TMP}},
            # A container's own /dev/shm has 64 MiB. What is in this one counts as its memory.
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": serving.shared_memory}},
        ],
    }


def _container(serving: Serving, name: str) -> dict[str, Any]:
    # Requests that are the limits make the QoS class Guaranteed: the last pods that a node short of memory evicts.
    size = {"cpu": serving.cpu, "memory": serving.memory}
    gpus = {"nvidia.com/gpu": str(serving.gpus)} if serving.gpus else {}
    interval, failures = _STARTUP
    return {
        "name": name,
        "image": str(serving.image),
        # A digest can only ever mean one image, so one that is there is the right one.
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": each, "containerPort": port, "protocol": "TCP"} for each, port in ports(serving).items()],
        "resources": {"requests": size, "limits": size | gpus},
        # Triton opens its port once the models are loaded. A server that lives but is not ready must not be restarted,
        # so only readiness asks for that.
        "startupProbe": {**_get("live"), "periodSeconds": interval, "failureThreshold": failures},
        "livenessProbe": {**_get("live"), "periodSeconds": 10, "failureThreshold": 3},
        "readinessProbe": {**_get("ready"), "periodSeconds": 5, "failureThreshold": 2},
        "lifecycle": {"preStop": {"sleep": {"seconds": DRAIN}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, {"name": "shm", "mountPath": "/dev/shm"}],
    }


def _get(state: str) -> dict[str, Any]:
    return {"httpGet": {"path": f"/v2/health/{state}", "port": "http"}, "timeoutSeconds": 5}
