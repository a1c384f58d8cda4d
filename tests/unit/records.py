"""Records as commands leave them."""

from __future__ import annotations

from builder.artifacts import NegativeControl, Verification


def verification(digest: str, passed: bool = True) -> Verification:
    """Of the image `mydali:embedded`."""
    return Verification(
        target="embedded",
        reference="mydali:embedded",
        digest=digest,
        passed=passed,
        when="2026-01-02T03:04:05+00:00",
        seed=1,
        gpus="",
        models=(),
        negative_control=NegativeControl(applicable=True, passed=True, evidence="x"),
        ready_seconds=1,
    )
