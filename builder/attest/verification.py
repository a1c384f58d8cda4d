"""The verification as a test result: https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md.

What that predicate has no field for is under `tritonDaliBuilder`, which docs/attestations.md describes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from builder.artifacts import Verification, VerifiedModel
from builder.process import redact

DETAILS = "tritonDaliBuilder"
NEGATIVE_CONTROL = "negative-control"
PASSED, WARNED, FAILED = "PASSED", "WARNED", "FAILED"
_LAST_LINES = 40


def predicate(
    verification: Verification,
    *,
    configuration: Mapping[str, str],
    versions: Mapping[str, str],
    server_log_sha256: str,
    server_log: Sequence[str] = (),
) -> dict[str, Any]:
    """What was asked of the image, and what it answered.

    Args:
        configuration: the files that told how to verify, builder.toml and oracles, by name: the SHA-256 of each in
            hexadecimal.
        versions: `triton`, `dali`, `builder` and `engine`, and what else there is to tell.
        server_log_sha256: of the whole log, in hexadecimal.
        server_log: its lines, of which the last ones are told without the passwords in them.
    """
    compared = [_test(model) for model in verification.models if model.values_compared]
    shapes_only = [_test(model) for model in verification.models if not model.values_compared]
    control = verification.negative_control
    if control.applicable:
        compared.append(NEGATIVE_CONTROL)
    everything = [*compared, *shapes_only]
    passed = verification.passed and control.passed
    return {
        "result": FAILED if not passed else WARNED if shapes_only else PASSED,
        "configuration": [
            {"name": name, "digest": {"sha256": sha256}} for name, sha256 in sorted(configuration.items())
        ],
        "passedTests": compared if passed else [],
        "warnedTests": shapes_only if passed else [],
        "failedTests": [] if passed else everything,
        DETAILS: {
            "target": verification.target,
            "when": verification.when,
            "seed": verification.seed,
            "lane": "gpu" if verification.gpus else "cpu",
            "gpus": verification.gpus,
            "versions": dict(versions),
            "models": [_model(model) for model in verification.models],
            "negativeControl": control.model_dump(),
            "readySeconds": verification.ready_seconds,
            "serverLog": {
                "digest": {"sha256": server_log_sha256},
                "lastLines": [redact(line) for line in server_log[-_LAST_LINES:]],
            },
        },
    }


def _test(model: VerifiedModel) -> str:
    return f"{model.name}/{model.version}"


def _model(model: VerifiedModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "version": model.version,
        "oracle": model.oracle,
        "valuesCompared": model.values_compared,
        "rtol": model.rtol,
        "atol": model.atol,
        "requests": model.requests,
        "leftOut": model.left_out,
        "latencyMilliseconds": {"p50": model.latency_ms.p50, "p99": model.latency_ms.p99},
        "requestsPerSecond": model.requests_per_second,
    }
