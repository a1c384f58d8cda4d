"""A Deployment and a Service, and for several replicas a PodDisruptionBudget."""

from __future__ import annotations

from typing import Any

from builder.render import pod
from builder.render.model import Serving


def documents(serving: Serving) -> tuple[dict[str, Any], ...]:
    """The objects, in the order in which they are to be applied."""
    budget = (_budget(serving),) if serving.replicas > 1 else ()
    return (_deployment(serving), _service(serving), *budget)


def metadata(serving: Serving) -> dict[str, Any]:
    """The name, the labels, and the namespace where one is given."""
    namespace = {"namespace": serving.namespace} if serving.namespace else {}
    return {"name": serving.name, **namespace, "labels": serving.labels}


def _deployment(serving: Serving) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(serving),
        "spec": {
            "replicas": serving.replicas,
            "selector": {"matchLabels": serving.selector},
            "template": {"metadata": {"labels": serving.labels}, "spec": pod.spec(serving, "triton")},
        },
    }


def _service(serving: Serving) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(serving),
        "spec": {
            "selector": serving.selector,
            # Metrics among them, by that name: it is what Prometheus' operator looks for.
            "ports": [{"name": name, "port": port, "targetPort": name} for name, port in pod.ports(serving).items()],
        },
    }


def _budget(serving: Serving) -> dict[str, Any]:
    """A drain takes one replica at a time: the next one can need minutes to be pulled and to load its models. With a
    single replica a budget would only keep nodes from being drained at all."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(serving),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": serving.selector}},
    }
