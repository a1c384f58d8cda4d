"""An InferenceService whose predictor is the image itself.

It has `containers`, not `model: {modelFormat: {name: triton}}`. That format is served by a ServingRuntime of KServe's
(config/runtimes/kserve-tritonserver.yaml in github.com/kserve/kserve), with an image of its own, its command
`tritonserver --model-store=/mnt/models`, and models that are downloaded from a storageUri when a pod starts. Here the
image is what was verified: its models and plugins are in it, and its command tells the backend which plugins to load.

What KServe makes of a predictor with containers is read from pkg/apis/serving/v1beta1/predictor_custom.go and
pkg/controller/v1beta1/inferenceservice/reconcilers there.
"""

from __future__ import annotations

from typing import Any

from builder.render import kubernetes, pod
from builder.render.model import Serving

_CONTAINER = "kserve-container"
"""The name by which KServe knows the container that answers."""
_MODE = {"serving.kserve.io/deploymentMode": "Standard"}
"""A Deployment and a Service; so named since KServe 0.16. Knative's mode allows one port for each container, and no
node selector and no security context of the pod unless the cluster's administrator switched them on."""


def documents(serving: Serving) -> tuple[dict[str, Any], ...]:
    """The one object that there is."""
    replicas = {"minReplicas": serving.replicas, "maxReplicas": serving.replicas}
    return (
        {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {**kubernetes.metadata(serving), "annotations": _MODE},
            "spec": {"predictor": {**replicas, **_predictor(serving)}},
        },
    )


def _predictor(serving: Serving) -> dict[str, Any]:
    spec = pod.spec(serving, _CONTAINER)
    (container,) = spec["containers"]
    # Else KServe takes a custom container to speak its first protocol, and shows a URL that Triton does not answer.
    protocol = {"env": [{"name": "PROTOCOL", "value": "v2"}]}
    return {**spec, "containers": [{**container, **protocol}]}
