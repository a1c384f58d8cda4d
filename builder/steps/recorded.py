"""Leaves what a build did in the journal of this machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from builder import __version__, journal, sources
from builder.artifacts import Image, Parts
from builder.errors import BuilderError
from builder.findings import Finding
from builder.journal import Entry, Step
from builder.oci import Layout
from builder.project import Project
from builder.views.summary import own_layers


def built(
    project: Project,
    images: Iterable[Image],
    parts: Mapping[str, Parts],
    *,
    when: datetime,
    seconds: float,
    steps: Sequence[Step],
    findings: Sequence[Finding],
) -> None:
    """A build that went through.

    Args:
        when: it began.
        steps: of all targets.
        findings: what was not so wrong that it would have failed.
    """
    for image in images:
        made = parts[image.target]
        own = own_layers(Layout(Image.layout(project, image.target)))
        Entry(
            **_common(project, image.target, when, seconds, steps, findings),
            reference=image.reference,
            digest=image.digest,
            base=image.base,
            base_digest=image.base_digest,
            base_layers=len(image.layers) - len(own) if own else 0,
            layers=image.layers,
            bytes=image.bytes,
            versions={
                "triton": made.triton_version,
                "dali": made.dali_version,
                "builder": __version__,
                "engine": image.engine,
            },
            plugins={each.path: each.sha256 for each in made.plugins},
            sources=_sources(project),
        ).save()


def failed(
    project: Project,
    targets: Iterable[str],
    error: BuilderError,
    *,
    when: datetime,
    seconds: float,
    steps: Sequence[Step],
    findings: Sequence[Finding],
) -> None:
    """A build that did not: nobody can tell whose fault it is where there are several targets, so it is each one's."""
    for name in targets:
        common = _common(project, name, when, seconds, steps, findings)
        Entry(**common, error=error.as_json(), sources=_sources(project)).save()


def _common(
    project: Project,
    target: str,
    when: datetime,
    seconds: float,
    steps: Iterable[Step],
    findings: Iterable[Finding],
) -> dict[str, Any]:
    return {
        "id": journal.new_id(when),
        "when": when.astimezone().isoformat(timespec="seconds"),
        "project": str(project.root),
        "repository": project.repository,
        "target": target,
        "seconds": round(seconds, 2),
        "steps": tuple(each for each in steps if target in (each.targets or (target,))),
        "findings": tuple(each.as_json() for each in findings if target in (each.target or target).split(", ")),
    }


def _sources(project: Project) -> dict[str, str]:
    found = {}
    for folder in (project.plugin_folder, project.repository_folder):
        if folder.is_dir():
            found[folder.name] = sources.digest(folder)
            found |= {f"{folder.name}/{name}": content for name, content in sources.files(folder).items()}
    return found
