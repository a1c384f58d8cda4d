"""Rules on builder.toml's targets: can their bases be had, and is what is said of them true?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from builder import package, releases
from builder.artifacts import Parts
from builder.errors import did_you_mean
from builder.findings import Finding
from builder.project import Project, Target
from builder.reference import Reference


def check_targets(project: Project, targets: Mapping[str, Target]) -> Iterator[Finding]:
    """What can be told without the bases."""
    locks = {
        path.stem.removeprefix("dali-"): path
        for folder in (package.ROOT, project.root)
        for path in folder.glob("embedded/requirements/dali-*.txt")
    }
    for name, target in targets.items():
        place = project.place("targets", name, "dali")
        if target.is_embedded:
            if target.dali and target.dali not in locks:
                yield Finding(
                    "dali-unknown",
                    f"the embedded base has no DALI {target.dali}{did_you_mean(target.dali, locks)}",
                    place,
                    f"choose among {', '.join(sorted(locks))}",
                    target=name,
                )
            if target.platform != "linux/amd64":
                yield Finding(
                    "platform-unsupported",
                    f"there is no embedded base for {target.platform}",
                    project.place("targets", name, "platform"),
                    'build on NVIDIA\'s image (triton_image = "nvcr.io/nvidia/tritonserver:..."), or for linux/amd64',
                    target=name,
                )
            continue
        if target.toolchain == "wheel" and target.dali_version not in locks:
            version = target.dali_version
            yield Finding(
                "dali-unknown",
                f"there is no wheel of DALI {version} to compile against{did_you_mean(version, locks)}"
                if version
                else f"nobody knows which DALI {target.triton_image} has, so there is no wheel to compile against",
                project.place("targets", name, "toolchain"),
                (f"there are {', '.join(sorted(locks))}; " if version else f"set dali in targets.{name}; ")
                + 'otherwise toolchain = "base" compiles against whatever the base has',
                target=name,
            )
        if target.dali:
            image = Reference.parse(target.triton_image)
            known = releases.dali_of(image)
            if known and known != target.dali:
                yield _differs(project, name, target.dali, known, f"Triton {releases.release_of(image)} has")


def check_base(project: Project, parts: Parts) -> Iterator[Finding]:
    """Whether the base turned out to hold the DALI that was expected."""
    target = project.targets[parts.target]
    if target.dali and target.dali != parts.dali_version:
        yield _differs(project, parts.target, target.dali, parts.dali_version, "the base has")
    elif target.dali_version and target.dali_version != parts.dali_version:
        yield Finding(
            "release-differs",
            f"{target.triton_image} has DALI {parts.dali_version}, not {target.dali_version} as its release should",
            project.place("targets", parts.target, "triton_image"),
            f'nothing; dali = "{parts.dali_version}" in targets.{parts.target} lets `check` know it before a build',
            target=parts.target,
        )


def _differs(project: Project, target: str, stated: str, real: str, who: str) -> Finding:
    return Finding(
        "dali-differs",
        f"DALI {stated} was expected, but {who} {real}",
        project.place("targets", target, "dali"),
        f'leave dali out of targets.{target}, or set it to "{real}"',
        target=target,
    )
