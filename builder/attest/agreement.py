"""Whether what is said of an image agrees with what the image says of itself, by its labels.

Labels are a part of what the image's digest is made of; a statement comes from anybody who may write to the repository.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from builder.attest import provenance, sbom, verification
from builder.attest.statement import PROVENANCE, SBOM, VERIFICATION, Statement
from builder.errors import AttestationMismatch, NotVerified
from builder.recipe import OCI, OURS
from builder.reference import Digest

DAMAGED = "do not deploy it; build, prove and push again"
TARGET, TRITON, DALI, PLUGINS = (OURS + name for name in ("target", "triton.version", "dali.version", "plugins"))
BASE, BASE_NAME, REVISION = (OCI + name for name in ("base.digest", "base.name", "revision"))
Labels = Mapping[str, str]


def check(said: Statement, digest: Digest, labels: Labels) -> str:
    """What is to be told of a statement that is right about the image `digest`.

    Raises:
        AttestationMismatch: it is about another image, or a label says something else.
        NotVerified: it is a verification that did not pass.
    """
    if not said.is_about(digest):
        raise _mismatch(f"the {said.title} is about another image")
    checks: dict[str, Callable[[], str]] = {
        VERIFICATION: lambda: _verification(said, labels),
        PROVENANCE: lambda: _provenance(said, labels),
        SBOM: lambda: _sbom(said, digest, labels),
    }
    return checks[said.predicate_type]()


def shown(labels: Labels) -> str:
    """The labels that were held against the statements."""
    known = {"target": TARGET, "Triton": TRITON, "DALI": DALI}
    told = [f"{name} {labels[label]}" for name, label in known.items() if label in labels]
    return f"agree with these: {', '.join([*told, *sorted(_plugins(labels))])}"


def _mismatch(what: str, *detail: str) -> AttestationMismatch:
    return AttestationMismatch(what, remedy=DAMAGED, detail=detail)


def _compare(title: str, what: str, said: object, label: str, labels: Labels) -> None:
    """Raises AttestationMismatch where a statement and a label differ."""
    labelled = labels.get(label, "")
    if (said or "") != labelled:
        raise _mismatch(
            f"the {title} and the image's label tell of another {what}",
            f"{title}: {said or 'none'}",
            f"{label}: {labelled or 'none'}",
        )


def _verification(said: Statement, labels: Labels) -> str:
    title, predicate = said.title, said.predicate
    details = _mapping(predicate.get(verification.DETAILS))
    if predicate.get("result") not in (verification.PASSED, verification.WARNED) or predicate.get("failedTests"):
        raise NotVerified("the verification did not pass", remedy="mend what failed, then build, prove and push again")
    control = _mapping(details.get("negativeControl"))
    if not control.get("passed") or (_plugins(labels) and not control.get("applicable")):
        raise NotVerified("the verification has no negative control that passed", remedy="run `smoke`, then `push`")
    versions = _mapping(details.get("versions"))
    _compare(title, "target", details.get("target"), TARGET, labels)
    _compare(title, "version of Triton", versions.get("triton"), TRITON, labels)
    _compare(title, "version of DALI", versions.get("dali"), DALI, labels)
    models = details.get("models")
    asked = [_mapping(each) for each in models] if isinstance(models, list) else []
    if not asked:
        raise NotVerified("the verification asked no model", remedy="run `smoke`, then `push`")
    shapes_only = sum(not each.get("valuesCompared") for each in asked)
    requests = sum(each.get("requests", 0) for each in asked if isinstance(each.get("requests"), int))
    return (
        f"{predicate['result'].lower()} on {details.get('when')} ({str(details.get('lane')).upper()}): "
        f"{_count(len(asked), 'model')}, {requests} requests answered rightly"
        + (f", {shapes_only} without an oracle, so by types and shapes alone" if shapes_only else "")
        + (", and without its plugins it failed" if control.get("applicable") else "")
    )


def _provenance(said: Statement, labels: Labels) -> str:
    definition = _mapping(said.predicate.get("buildDefinition"))
    if definition.get("buildType") != provenance.BUILD_TYPE:
        raise _mismatch("the provenance is of another program's build")
    target = _mapping(definition.get("externalParameters")).get("target")
    _compare(said.title, "target", target, TARGET, labels)
    given = definition.get("resolvedDependencies")
    materials = [_mapping(each) for each in given] if isinstance(given, list) else []
    told = [_count(len(materials), "dependency", "dependencies")]
    if BASE in labels:
        base = _named(materials, provenance.BASE)
        _compare(said.title, "base image", f"sha256:{_mapping(base.get('digest')).get('sha256')}", BASE, labels)
        told.insert(0, f"base {labels.get(BASE_NAME, '')}@{labels[BASE]}")
    if REVISION in labels:
        source = _named(materials, provenance.SOURCE)
        notes = _mapping(source.get("annotations"))
        commit = _mapping(source.get("digest")).get("gitCommit") or notes.get("commit")
        _compare(said.title, "commit", f"{commit}-dirty" if notes.get("dirty") else commit, REVISION, labels)
        told.insert(0, f"commit {labels[REVISION]}")
    return ", ".join(told)


def _sbom(said: Statement, digest: Digest, labels: Labels) -> str:
    if sbom.subject(said.predicate) != str(digest):
        raise _mismatch("the SBOM is about another image")
    versions = sbom.versions(said.predicate)
    _compare(said.title, "version of Triton", versions.get(sbom.TRITON), TRITON, labels)
    _compare(said.title, "version of DALI", versions.get(sbom.DALI), DALI, labels)
    listed, labelled = sbom.plugins(said.predicate), _plugins(labels)
    if listed != labelled:
        differing = sorted(path for path in listed.keys() | labelled.keys() if listed.get(path) != labelled.get(path))
        raise _mismatch(
            "the SBOM and the image's label tell of other plugins",
            *(
                f"{path}: SBOM {listed.get(path) or 'has none'}, label {labelled.get(path) or 'has none'}"
                for path in differing
            ),
        )
    return f"{_count(sbom.count(said.predicate), 'component')}, {_count(len(listed), 'plugin')}"


def _plugins(labels: Labels) -> dict[str, str]:
    """SHA-256 of each plugin in hexadecimal, by its path in the image."""
    each = (entry.rpartition("@sha256:") for entry in labels.get(PLUGINS, "").split())
    return {path: sha256 for path, _, sha256 in each}


def _named(materials: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    return next((each for each in materials if each.get("name") == name), {})


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _count(number: int, one: str, several: str = "") -> str:
    return f"{number} {one if number == 1 else several or one + 's'}"
